"""Uploads that are cut in the middle, by a kill or by an orderly stop."""

import signal
import socket
import threading

import httpx2
import numpy as np
import pytest
import safetensors.numpy
from blake3 import blake3
from support.fleet import TENSORS, bits, forty
from support.processes import poll

import masksmith as ms

PATTERN = "transposable 8:16"


def in_background(work):
    """Run something on a thread; gives a function that waits for its result."""
    box = []
    thread = threading.Thread(target=lambda: box.append(work()), daemon=True)
    thread.start()

    def result():
        thread.join(300)
        assert box, "it failed or took too long"
        return box[0]

    return result


def uploads(fleet):
    """Whole uploads, with what tells a repeated one from one that was left alone."""
    return {path: path.stat().st_mtime_ns for path in (fleet.store / "tensors").glob("*/*") if "#" not in path.name}


def refuses_connections(service):
    try:
        socket.create_connection(("127.0.0.1", int(service.url.rpartition(":")[2])), 60).close()
    except ConnectionRefusedError:
        return True
    return False


@pytest.mark.slow
def test_a_client_goes_on_where_the_service_was_killed(fleet, table):
    weights = forty(seed=8, rows=1024)
    before = len(uploads(fleet))
    with fleet.client() as client:
        job = in_background(lambda: client.jobs.submit(weights, PATTERN))
        poll(lambda: len(uploads(fleet)) >= before + TENSORS // 4)
        fleet.services[0].kill()
        arrived = uploads(fleet)
        assert len(arrived) < before + TENSORS
        fleet.services[0].start()
        found = bits(job())
    assert arrived.items() <= uploads(fleet).items()
    expected = ms.solve_many({name: ms.magnitude(weight) for name, weight in weights.items()}, PATTERN)
    lost = sum(found[name] != solution.mask.tobytes() for name, solution in expected.items())
    table["an upload cut by SIGKILL of the service"].add(lost=lost)
    assert not lost


def test_a_running_upload_is_finished_before_the_service_stops(fleet, table):
    service = fleet.services[1]
    data = safetensors.numpy.save({"w": np.random.default_rng(9).standard_normal((512, 512))})
    digest, address = blake3(data).hexdigest(), httpx2.URL(service.url)
    head = f"PUT /v1/tensors/{digest} HTTP/1.1\r\nHost: {address.host}\r\nContent-Length: {len(data)}\r\n"
    with socket.create_connection((address.host, address.port), 300) as connection, connection.makefile("rb") as reader:
        connection.sendall(f"{head}Expect: 100-continue\r\n\r\n".encode())
        # The service answers this once it begins to read the body; a request that it has not seen may be cut.
        assert reader.readline() == b"HTTP/1.1 100 Continue\r\n"
        connection.sendall(data[: 2**18])
        service.process.terminate()
        poll(lambda: refuses_connections(service))
        connection.sendall(data[2**18 :])
        assert reader.readline() == b"\r\n"
        status = int(reader.readline().split()[1])
    assert service.process.wait(240) in (0, -signal.SIGTERM)
    table["SIGTERM in the middle of an upload"].add(lost=int(status != 201))
    assert status == 201
    assert fleet.services[0].runs
    assert httpx2.head(f"{fleet.url}/v1/tensors/{digest}").status_code == 200
