"""Stops, kills and starts of a service, of one process and of two; those after which it has to be started come last."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time

import httpx2
import numpy as np
import pytest
import safetensors.numpy
from blake3 import blake3
from support.processes import children_of, environment, is_alive, poll, run

from masksmith_client import Client
from masksmith_service import server
from masksmith_service.server import GRACE_S
from masksmith_state.jobs.redis_keys import ENDED_CHANNEL

WEIGHT = {"w": np.ones((512, 512), np.float32)}


@pytest.fixture(params=[1, 2])
def service(fleet_of, request):
    """A running service of one process or of two."""
    fleet = fleet_of(request.param)
    seat = fleet.services[0]
    seat.processes, seat.redis = request.param, fleet.redis
    poll(lambda: len(serving(seat)) == request.param)
    return seat


def serving(seat):
    """The processes that answer requests; the first of several only looks after them."""
    children = [pid for pid in children_of(seat.process.pid) if "resource_tracker" not in command(pid)]
    return children or [seat.process.pid]


def command(pid):
    try:
        with open(f"/proc/{pid}/cmdline") as file:
            return file.read()
    except OSError:
        return ""


def on_thread(work):
    """Run something on a thread; gives a function that waits for its result."""
    box = []
    thread = threading.Thread(target=lambda: box.append(work()), daemon=True)
    thread.start()

    def result():
        thread.join(300)
        assert box, "it failed or took too long"
        return box[0]

    return result


def upload(seat, seed, pause_s=0.2):
    """Send a file in pieces; gives a function that waits for the answer's status, or None for a cut."""
    data = safetensors.numpy.save(WEIGHT, {"seed": str(seed)})
    began = threading.Event()

    def body():
        for at in range(0, len(data), 2**18):
            yield data[at : at + 2**18]
            began.set()
            time.sleep(pause_s)

    def send():
        url = f"{seat.url}/v1/tensors/{blake3(data).hexdigest()}"
        try:
            return httpx2.put(url, content=body(), timeout=300).status_code
        except httpx2.TransportError:
            return None

    status = on_thread(send)
    assert began.wait(300)
    return status


def submit_and_wait(seat):
    headers, data = {"Prefer": "wait=50"}, safetensors.numpy.save(WEIGHT)
    return httpx2.post(f"{seat.url}/v1/masks?pattern=2:4", headers=headers, content=data, timeout=300)


def followers(seat):
    """Connections to the broker that wait for a job's next event."""
    return sum(client["cmd"] == "xread" for client in seat.redis.client_list())


def is_quiet(seat):
    """Whether nobody follows a job for longer than a follower does anything else."""
    until = time.monotonic() + 0.5
    while time.monotonic() < until:
        if followers(seat):
            return False
        time.sleep(0.02)
    return True


@pytest.mark.slow
def test_a_stop_ends_within_one_grace(fleet_of):
    seats = [fleet_of(processes).services[0] for processes in (1, 2)]
    for seat in seats:
        upload(seat, "stuck", pause_s=2 * GRACE_S)
    began = time.monotonic()
    for seat in seats:
        seat.process.terminate()
    assert all(seat.process.wait(GRACE_S + 10) in (0, -signal.SIGTERM) for seat in seats)
    assert time.monotonic() - began > GRACE_S - 1


def test_a_killed_process_is_replaced(fleet_of):
    service = fleet_of(2).services[0]
    before = poll(lambda: len(found := serving(service)) == 2 and found)
    answers = {pid: upload(service, f"killed {pid}") for pid in before}
    os.kill(before[0], signal.SIGKILL)
    with Client(service.url) as client:
        client.jobs.submit(WEIGHT, "2:4").cancel()
    # A kill in the middle of a health check is only seen when the check ends.
    poll(lambda: len(serving(service)) == 2 and before[0] not in serving(service))
    assert before[1] in serving(service)
    assert {answer() for answer in answers.values()} <= {201, None}
    assert httpx2.get(f"{service.url}/healthz").status_code == 200


def test_a_stream_ends_with_its_connection_whatever_waits_behind(service):
    address = ("127.0.0.1", int(service.url.rpartition(":")[2]))
    with Client(service.url) as client:
        job = client.jobs.submit(WEIGHT, "2:4")
        poll(lambda: is_quiet(service))
        with socket.create_connection(address, timeout=120) as connection:
            for path in (f"/v1/jobs/{job.id}/events", "/healthz"):
                connection.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            poll(lambda: followers(service) == 1)
        poll(lambda: is_quiet(service))
        job.cancel()


@pytest.mark.parametrize("processes", [1, 2])
def test_an_address_in_use_is_said(fleet_of, processes, tmp_path):
    fleet, log = fleet_of(1), tmp_path / "log"
    port = fleet.url.rpartition(":")[2]
    settings = {"MASKSMITH_PORT": port, "MASKSMITH_PROCESSES": str(processes), "MASKSMITH_REDIS_URL": fleet.broker.url}
    other = run("masksmith_service", log, environment(MASKSMITH_STORE_URL=fleet.store, **settings))
    assert other.wait(300) == 3
    assert "address already in use" in log.read_text().lower()


def test_several_processes_whose_application_cannot_start_end_with_three(records, valkey, tmp_path):
    """As one process does; a directory of other files becomes wrong only after the checks of `main`."""
    (tmp_path / "foreign").write_text("")
    code = (
        "from masksmith_service import server, settings; from masksmith_state.settings import read_settings\n"
        "server.serve(read_settings(settings.Settings))"
    )
    given = {"MASKSMITH_REDIS_URL": valkey.url, "MASKSMITH_STORE_URL": str(tmp_path), "MASKSMITH_PROCESSES": "2"}
    command = [sys.executable, "-P", "-c", code]
    ended = subprocess.run(command, env=environment(MASKSMITH_PORT="0", **given), capture_output=True, text=True)
    assert ended.returncode == 3
    assert "neither empty nor a store of masksmith" in ended.stderr


def test_an_application_that_cannot_be_made_is_not_made_again(monkeypatch, caplog):
    """Only a process that ends with 3 is not started again."""
    monkeypatch.setattr(server, "_make_app", lambda: 1 / 0)
    with pytest.raises(SystemExit, match="3"):
        server.make_app()
    assert "ZeroDivisionError" in caplog.text


def test_no_child_process_outlives_its_parent(fleet_of):
    service = fleet_of(2).services[0]
    pids = poll(lambda: len(found := serving(service)) == 2 and found)
    service.kill()
    poll(lambda: not any(map(is_alive, pids)))


def test_a_stop_ends_streams_at_once_and_uploads_in_order(service):
    pids, before = serving(service), len(service.log.read_text())
    with Client(service.url) as client:
        job = client.jobs.submit(WEIGHT, "2:4")
    url = f"{service.url}/v1/jobs/{job.id}"
    streams = [on_thread(lambda: httpx2.get(f"{url}/events", timeout=300).status_code) for _ in range(6)]
    waiting = on_thread(lambda: submit_and_wait(service).json()["state"])
    poll(lambda: followers(service) == len(streams) and service.redis.pubsub_numsub(ENDED_CHANNEL)[0][1] == 1)
    answer = upload(service, "in order")
    assert service.stop()
    assert "timeout graceful shutdown exceeded" not in service.log.read_text()[before:]
    assert [stream() for stream in streams] == [200] * len(streams)
    assert waiting() == "queued"
    assert answer() == 201
    assert not any(map(is_alive, pids))
    assert "Traceback" not in service.log.read_text()[before:]
