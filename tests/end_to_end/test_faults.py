import contextlib
import os
import signal
import socket

import httpx2
import numpy as np
import pytest
import safetensors.numpy
from blake3 import blake3

from masksmith_client import Client


def check_result(job, big):
    job.wait(600)
    assert (job.masks()["big"] == big.mask).all()
    assert job.document.tensors[0].status == "optimal"


@pytest.mark.slow
def test_a_killed_pool_process_costs_nothing(stack, running, big):
    victim = stack.pool_of_worker()[0]
    os.kill(victim, signal.SIGKILL)
    check_result(running, big)
    assert victim not in stack.pool_of_worker()


@pytest.mark.slow
def test_a_killed_worker_costs_nothing(stack, running, big):
    stack.kill_worker()
    assert stack.http.get("/readyz").json()["code"] == "no_worker"
    done = running.refresh().document.progress
    assert done.done < done.total
    stack.start_worker()
    check_result(running, big)


@pytest.mark.slow
def test_a_worker_that_is_told_to_stop_does_so_within_seconds(stack, running, big):
    stack.worker.terminate()
    assert stack.worker.wait(240) == 0
    # Its shards were given back as they were: no attempt is gone.
    pending = stack.valkey_client.smembers(f"masksmith:job:{running.id}:pending")
    attempts = stack.valkey_client.hgetall(f"masksmith:job:{running.id}:attempts")
    assert pending
    assert all(int(attempts.get(shard, 0)) == 0 for shard in pending)
    assert not stack.valkey_client.keys("masksmith:workers:*")
    stack.start_worker()
    check_result(running, big)


def test_a_service_that_is_told_to_stop_lets_followers_go(stack):
    job = idle_job(stack)
    log = next(path for path in reversed(stack.logs) if "service" in path.name)
    with stack.http.stream("GET", f"/v1/jobs/{job}/events") as response:
        lines = response.iter_lines()
        assert next(lines)
        stack.service.terminate()
        for _ in lines:
            pass
    stack.service.wait(240)
    assert "timeout graceful shutdown exceeded" not in log.read_text()
    stack.start_service()
    assert stack.job(job)["state"] == "queued"
    assert stack.http.delete(f"/v1/jobs/{job}").status_code == 204


def follow(stack, job):
    """Ask for a job's events, over a socket of its own; gives it once they flow."""
    connection = socket.create_connection(stack.address)
    connection.settimeout(300)
    connection.sendall(f"GET /v1/jobs/{job}/events HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode())
    received = connection.recv(65536)
    assert received.startswith(b"HTTP/1.1 200")
    return connection, received


def idle_job(stack):
    """A job that waits in vain: no worker here measures kernels."""
    request = {"kind": "benchmark", "model": "MiniLM", "patterns": ["2:4"], "batches": [1], "curves": False}
    return stack.http.post("/v1/jobs", json=request).json()["id"]


@pytest.mark.slow
def test_a_hundred_and_fifty_follow_one_job(stack):
    job = idle_job(stack)
    followers = [follow(stack, job) for _ in range(150)]
    assert stack.http.get(f"/v1/jobs/{job}").json()["state"] == "queued"
    stack.http.post(f"/v1/jobs/{job}/cancel")
    for connection, received in followers:
        with connection:
            while piece := connection.recv(65536):
                received += piece
        assert b'"canceled"' in received


def test_followers_who_vanish_leave_nothing_behind(stack, poll):
    job = idle_job(stack)

    def waiting():
        return stack.valkey_client.info("clients")["blocked_clients"]

    before = waiting()
    followers = [follow(stack, job)[0] for _ in range(40)]
    poll(lambda: waiting() >= before + 40)
    for connection in followers:
        connection.close()
    poll(lambda: waiting() <= before)
    assert stack.http.delete(f"/v1/jobs/{job}").status_code == 204


def test_an_upload_that_is_cut_leaves_nothing(stack, poll):
    data = safetensors.numpy.save({"a": np.random.default_rng(0).standard_normal(4_000_000)})

    def half():
        yield data[: len(data) // 2]
        raise ConnectionAbortedError

    for method, path in [("PUT", f"/v1/tensors/{blake3(data).hexdigest()}"), ("POST", "/v1/masks?pattern=2:4")]:
        with contextlib.suppress(ConnectionAbortedError, httpx2.TransportError):
            stack.http.request(method, path, content=half())
    store = stack.folder / "store"
    poll(lambda: not [*store.rglob("*#*"), *(store / "incoming").glob("*")])
    assert stack.http.head(f"/v1/tensors/{blake3(data).hexdigest()}").status_code == 404


@pytest.mark.slow
def test_a_job_outlives_everything_killed_at_once(up, big, poll):
    first = up()
    with Client(first.url) as client:
        job = client.jobs.submit({"big": big.weight}, big.pattern, solver="min-cost-flow").id
        poll(lambda: client.jobs.get(job).document.progress.done >= 2)
    first.signal(signal.SIGKILL)
    poll(lambda: not first.members())
    second = up()
    with Client(second.url) as client:
        found = client.jobs.get(job)
        assert found.document.progress.done >= 2
        check_result(found, big)


@pytest.mark.slow
@pytest.mark.parametrize(
    "part",
    [
        "valkey-server",
        "masksmith_worker",
        "masksmith_service",
    ],
)
def test_a_job_outlives_each_part_killed_alone(up, big, poll, part):
    whole = up()
    with Client(whole.url) as client:
        job = client.jobs.submit({"big": big.weight}, big.pattern, solver="min-cost-flow")
        poll(lambda: job.refresh().document.progress.done >= 2)
        os.kill(whole.part(part.encode()), signal.SIGKILL)
        check_result(job, big)


@pytest.mark.slow
def test_a_quiet_stream_is_kept_alive(stack):
    connection, received = follow(stack, idle_job(stack))
    with connection:
        while b"\n: " not in received:
            piece = connection.recv(65536)
            assert piece, "the stream ended"
            received += piece


@pytest.mark.slow
def test_a_job_outlives_ctrl_c(up, big, poll):
    first = up()
    with Client(first.url) as client:
        job = client.jobs.submit({"big": big.weight}, big.pattern, solver="min-cost-flow").id
        poll(lambda: client.jobs.get(job).document.progress.done >= 2)
    first.signal(signal.SIGINT)
    assert first.members() == []
    second = up()
    with Client(second.url) as client:
        found = client.jobs.get(job)
        assert found.document.progress.done >= 2
        check_result(found, big)
    assert second.signal(signal.SIGINT) == 0
