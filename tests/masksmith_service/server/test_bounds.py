"""Bounds of a real process: connections, streams, and responses that nobody reads."""

import contextlib
import json
import socket
import time

import httpx2
import numpy as np
import pytest
import safetensors.numpy
from support.fleet import Fleet
from support.leases import take
from support.processes import memory_mib, poll

from masksmith_service.bounds.connections import RESERVE
from masksmith_service.bounds.table import MIB, cost, limit
from masksmith_state.blobs.names import result_name
from masksmith_state.blobs.store import BlobStore
from masksmith_state.jobs.records import JobRecords
from masksmith_state.jobs.reports import ShardReport
from masksmith_state.keys import Keys
from masksmith_wire import masks

LIMIT, STREAMS = 40, 8
HEALTH = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
ROWS = 4096
"""Rows of a mask of 16 MiB as bools: more than sockets buffer."""


@pytest.fixture(scope="module")
def fleet(tmp_path_factory):
    settings = {
        "MASKSMITH_MAX_CONNECTIONS": str(LIMIT),
        "MASKSMITH_MAX_STREAMS": str(STREAMS),
        "MASKSMITH_READ_STALL_S": "5",
        "MASKSMITH_REQUEST_HEAD_S": "120",
        "MASKSMITH_AUTH": "required",
    }
    with Fleet(tmp_path_factory.mktemp("bounds"), workers=0, **settings) as fleet:
        yield fleet


@pytest.fixture(scope="module")
def records(fleet):
    records = JobRecords(fleet.broker.url)
    yield records
    records.redis.close()


@pytest.fixture(scope="module")
def tokens(records):
    return {name: Keys(records.redis).create(name)[1] for name in ("ann", "bob")}


@pytest.fixture(scope="module")
def job(fleet, tokens, records):
    """An ended job with a mask of its own, stored as a worker does it."""
    headers = {"Authorization": f"Bearer {tokens['ann']}"}
    body = safetensors.numpy.save({"w": np.ones((ROWS, ROWS), np.float16)})
    job = httpx2.post(f"{fleet.url}/v1/masks?pattern=2:4", content=body, headers=headers, timeout=60).json()["id"]
    store = BlobStore(str(fleet.store))
    for index, shard in records.shards(job).items():
        lease = take(records, job, index)
        key, entries = f"{index:064x}", (shard.last - shard.first) * ROWS
        digest = store.put(result_name(key), masks.pack(np.tile([True, True, False, False], entries // 4)).tobytes())
        report = ShardReport(result=key, status="optimal", kept=entries // 2, entries=entries, mask_digest=digest)
        assert records.complete(lease, report)
    return job


@contextlib.contextmanager
def connected(fleet, count, data=b""):
    address = ("127.0.0.1", int(fleet.url.rpartition(":")[2]))
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_connection(address, timeout=120)) for _ in range(count)]
        for each in sockets:
            if data:
                each.sendall(data)
        yield sockets


def get(fleet, path, token=None):
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    return httpx2.get(fleet.url + path, headers=headers, timeout=120)


def request(path, token):
    return f"GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\r\n".encode()


def resident_mib(fleet):
    return memory_mib(fleet.services[0].process.pid, "VmRSS")


def test_beyond_the_limit_of_connections_only_health_is_served(fleet, tokens):
    begun = request("/v1/masks?pattern=2:4", tokens["ann"]).replace(b"GET", b"POST").removesuffix(b"\r\n")
    with connected(fleet, LIMIT, begun + b"Content-Length: 1000\r\n\r\n"):
        poll(lambda: get(fleet, "/v1/session", tokens["bob"]).status_code == 503)
        answer = get(fleet, "/v1/session", tokens["bob"])
        assert answer.json()["code"] == "overloaded"
        assert answer.json()["bound"] == "max_connections"
        assert int(answer.headers["Retry-After"]) > 0
        assert answer.headers["connection"] == "close"
        assert get(fleet, "/healthz").status_code == 200
    poll(lambda: get(fleet, "/v1/session", tokens["bob"]).status_code == 200)


def test_connections_without_a_request_make_room(fleet, tokens):
    with connected(fleet, 3 * (LIMIT + RESERVE)) as sockets:
        assert get(fleet, "/healthz").status_code == 200
        sockets[0].settimeout(120)
        assert sockets[0].recv(1) == b"", "the oldest is closed"
    poll(lambda: get(fleet, "/v1/session", tokens["bob"]).status_code == 200)


def test_streams_of_a_key_leave_room_for_another(fleet, tokens):
    headers = {"Authorization": f"Bearer {tokens['ann']}"}
    body = safetensors.numpy.save({"w": np.ones((4, 4), np.float32)})
    live = httpx2.post(f"{fleet.url}/v1/masks?pattern=2:4", content=body, headers=headers).json()
    events = f"/v1/jobs/{live['id']}/events"
    with connected(fleet, STREAMS // 2, request(events, tokens["ann"])) as sockets:
        assert all(each.recv(12) == b"HTTP/1.1 200" for each in sockets)
        answer = get(fleet, events, tokens["ann"])
        assert (answer.status_code, answer.json()["bound"]) == (429, "max_streams")
        assert int(answer.headers["Retry-After"]) > 0
        assert get(fleet, "/v1/session", tokens["bob"]).status_code == 200
        assert get(fleet, "/healthz").status_code == 200


def test_downloads_that_nobody_reads_end_and_use_little_memory(fleet, tokens, job):
    path = f"/v1/jobs/{job}/masks?format=bool"
    before, ended = resident_mib(fleet), ended_downloads(fleet, job)
    with connected(fleet, 12, request(path, tokens["ann"])) as sockets:
        assert all(each.recv(12) == b"HTTP/1.1 200" for each in sockets)
        assert resident_mib(fleet) - before < 12 * cost("download") / MIB
        assert get(fleet, "/v1/session", tokens["bob"]).status_code == 200
        poll(lambda: ended_downloads(fleet, job) == ended + 12)
        for each in sockets:
            assert is_cut(each)
    whole = safetensors.numpy.load(get(fleet, path, tokens["ann"]).content)["w"]
    assert whole.shape == (ROWS, ROWS)
    assert whole.sum() == ROWS * ROWS // 2


def ended_downloads(fleet, job):
    return fleet.services[0].log.read_text().count(f"GET /v1/jobs/{job}/masks")


def is_cut(connection):
    """Read what is there; a download that was cut is shorter than it claims."""
    received = 0
    with contextlib.suppress(ConnectionResetError):
        while piece := connection.recv(2**20):
            received += len(piece)
    return received < ROWS * ROWS


def test_a_connection_takes_no_more_memory_than_it_is_counted_as(fleet):
    field = b"a: b\r\n" * (limit("fields") - 10)
    one = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n" + field + b"\r\n"
    with connected(fleet, LIMIT // 2, HEALTH):
        before = resident_mib(fleet)
    blocked = request("/readyz", "x") + one * 7
    with connected(fleet, LIMIT // 2, blocked):
        time.sleep(1)
        assert resident_mib(fleet) - before < LIMIT // 2 * cost("connection") / MIB


def test_more_headers_than_may_wait_end_the_connection(fleet):
    field = b"a: b\r\n" * (limit("fields") - 10)
    one = b"GET /readyz HTTP/1.1\r\nHost: localhost\r\n" + field + b"\r\n"
    with connected(fleet, 1, one * 40) as (flood,):
        received = b""
        with contextlib.suppress(ConnectionResetError):
            while piece := flood.recv(2**16):
                received += piece
        assert received.count(b"HTTP/1.1 ") < 40
    assert json.loads(get(fleet, "/healthz").content)["status"] == "ok"
