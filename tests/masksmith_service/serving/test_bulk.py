"""The bulk process: it alone carries what is large, and its end is not the service's."""

import os
import signal
import threading
import time

import httpx2
import numpy as np
import pytest
import safetensors.numpy
from blake3 import blake3
from processes import is_alive, poll

from masksmith_client import Client

WEIGHT = {"w": np.ones((1024, 1024), np.float32)}


def upload(pair, seed, pieces=None):
    """Send a file of 4 MiB on a thread; gives a function that waits for the answer's status, or None for a cut."""
    data = safetensors.numpy.save(WEIGHT, {"seed": str(seed)})
    begun, box = threading.Event(), []

    def body():
        for at in range(0, len(data), 2**20):
            yield data[at : at + 2**20]
            begun.set()
            time.sleep(0.2)

    def send():
        try:
            box.append(httpx2.put(f"{pair.url}/v1/tensors/{blake3(data).hexdigest()}", content=body(), timeout=60))
        except httpx2.TransportError:
            box.append(None)

    thread = threading.Thread(target=send, daemon=True)
    thread.start()
    assert begun.wait(10)

    def status():
        thread.join(60)
        return box[0] and box[0].status_code

    return status


@pytest.fixture
def stopped(pair):
    """The bulk process stands still for a while."""
    os.kill(pair.bulk, signal.SIGSTOP)
    yield pair
    os.kill(pair.bulk, signal.SIGCONT)


def test_questions_are_answered_while_no_upload_moves(stopped):
    answer = upload(stopped, "still")
    for _ in range(5):
        assert httpx2.get(f"{stopped.url}/healthz", timeout=5).status_code == 200
    small = safetensors.numpy.save({"w": np.ones((8, 8), np.float32)})
    assert httpx2.post(f"{stopped.url}/v1/masks?pattern=2:4", content=small, timeout=5).status_code == 202
    assert not httpx2.get(f"{stopped.url}/v1/jobs", timeout=5).json()["next"]
    os.kill(stopped.bulk, signal.SIGCONT)
    assert answer() == 201


def test_it_steps_back_behind_the_front(pair):
    assert os.getpriority(os.PRIO_PROCESS, pair.bulk) - os.getpriority(os.PRIO_PROCESS, pair.front) == 10


def test_another_takes_its_place_and_clients_go_on(pair):
    answer, killed, ready = upload(pair, "killed"), pair.bulk, pair.seat.bulks
    os.kill(killed, signal.SIGKILL)
    assert answer() is None
    with Client(pair.url) as client:
        # At once, while there is none.
        client.jobs.submit(WEIGHT, "2:4").cancel()
    pair.await_bulk(ready + 1)
    assert pair.bulk != killed
    assert upload(pair, "after")() == 201


def test_it_does_not_outlive_the_front(pair):
    bulk = pair.bulk
    answer = upload(pair, "orphan")
    pair.seat.kill()
    poll(lambda: not is_alive(bulk), 5)
    assert answer() is None


def test_both_end_in_order_once_uploads_are_there(pair):
    bulk = pair.bulk
    answer = upload(pair, "drained")
    assert pair.seat.stop()
    assert answer() == 201
    assert not is_alive(bulk)
