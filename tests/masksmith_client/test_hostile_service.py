"""What a service sends is limited, and whatever it sends is an error of this package or ignored."""

import gzip
import json
import time

import httpx2
import numpy as np
import pytest

from masksmith_client import Client, ClientError
from masksmith_client._errors import InputError, JobFailedError, StatusError, TimeoutError, WireError
from masksmith_client._job_view import JobView
from masksmith_client.transport import events, limits
from masksmith_client.transport.events import EventParser
from masksmith_client.transport.limits import LineSplitter
from masksmith_client.transport.retry import RetryPolicy
from masksmith_wire.documents import Job

JOB = {
    "id": "j", "state": "succeeded", "pattern": "2:4", "solver": "auto", "created_at": "2026-01-01T00:00:00Z",
    "progress": {"done": 1, "total": 1}, "tensors": [{"name": "w", "state": "succeeded", "shape": [4, 4]}],
}  # fmt: skip
ERROR = {"code": "c", "message": "m"}
END = b'event: state\ndata: {"state": "succeeded"}\nid: 1-1\n\n'
WEIGHTS = {"w": np.ones((4, 4), np.float32)}


def solve(answers):
    """Solve at a service that gives these answers, by the end of the path; other requests are answered well."""

    def answer(request):
        path = request.url.path
        for end, response in answers.items():
            if path.endswith(end):
                return response
        if path == "/healthz":
            return httpx2.Response(200, json={"wire_version": 1})
        if path.endswith("/events"):
            return httpx2.Response(200, content=END)
        return httpx2.Response(200, json=JOB)

    with Client("http://service", retry=RetryPolicy(retries=0), transport=httpx2.MockTransport(answer)) as client:
        return client.solve(WEIGHTS, "2:4")


def zeros():
    for _ in range(1000):
        yield bytes(2**16)


def job_with(**members):
    return {"/v1/jobs": httpx2.Response(200, json=JOB | members)}


HOSTILE = {
    "a time that is no number": {"/v1/jobs": httpx2.Response(503, headers=[(b"Retry-After", b"\xb2")])},
    "a deep health document": {"/healthz": httpx2.Response(200, content=b"[" * 10**5)},
    "an id with control characters": job_with(id="../\x1b]0;x\x07"),
    "an id that is too long for a URL": job_with(id="x" * 70_000),
    "a document without end": {"/v1/jobs": httpx2.Response(200, content=zeros())},
    "an error without end": {"/v1/jobs": httpx2.Response(400, content=zeros())},
    "a download without end": {"/masks": httpx2.Response(200, content=zeros())},
    "a line without end": {"/events": httpx2.Response(200, content=zeros()), "/v1/jobs/j": httpx2.Response(400)},
    "a coding that was not requested": {
        "/v1/jobs": httpx2.Response(200, content=zeros(), headers={"content-encoding": "br"})
    },
    "two codings": {"/v1/jobs": httpx2.Response(200, content=zeros(), headers={"content-encoding": "gzip, gzip"})},
    "a small body that becomes large": {
        "/v1/jobs": httpx2.Response(
            200, content=iter([gzip.compress(bytes(2**24))]), headers={"content-encoding": "gzip"}
        )
    },
}


@pytest.mark.parametrize("what", HOSTILE)
def test_every_answer_is_an_error_of_this_package(what, monkeypatch):
    monkeypatch.setattr(limits, "MAX_DOCUMENT_BYTES", 2**20)
    monkeypatch.setattr(limits, "FORMAT_MAX_HEADER_BYTES", 2**20)
    with pytest.raises(ClientError) as caught:
        solve(HOSTILE[what])
    assert "\x1b" not in str(caught.value)


@pytest.mark.parametrize(
    "lines",
    [
        'event: progress\ndata: {"done": "x", "total": []}',
        'event: progress\ndata: {"done": 1e999, "total": 1}',
        'event: state\ndata: {"state": ["x"]}',
        'event: state\ndata: {"state": {"a": 1}}',
        "event: x\nid: \ufffd\ndata: {}",
        "event: x\ndata: " + "[" * 10**5,
    ],
)
def test_an_event_that_cannot_be_read_is_ignored(lines):
    parser = EventParser()
    for line in lines.split("\n"):
        assert parser.feed(line) is None
    event = parser.feed("")
    assert event is None or (event.state, event.progress, event.id) == (None, None, None)


LATE, EARLY = "9999-12-31T23:59:59-14:00", "0001-01-01T00:00:00+14:00"


@pytest.mark.parametrize("members", [
    *({name: moment} for name in ("created_at", "started_at", "finished_at") for moment in (LATE, EARLY)),
    {"progress": {"done": 10**30, "total": 1}}, {"progress": {"done": -1, "total": 1}},
    {"position": {"jobs_ahead": 1, "starts_in_s": 1e308}},
    *({"tensors": [JOB["tensors"][0] | {"objective": 1.0, name: value}]} for name, value in [
        ("solve_s", float("nan")), ("solve_s", -1.0), ("solve_s", 1e300), ("shape", [10**300] * 2),
        ("shape", [2] * 2000), ("objective", -1.0), ("upper_bound", float("nan")), ("gap", float("inf")),
        ("storage_bytes", {"dense": 10**400}),
    ]),
], ids=str)  # fmt: skip
def test_numbers_and_times_that_cannot_be_shown_are_not_from_a_service(members):
    document = json.dumps(JOB | members).encode()
    with pytest.raises(WireError, match="is not from a masksmith service"):
        solve({"/v1/jobs": httpx2.Response(200, content=document)})


def test_a_list_of_jobs_with_a_time_outside_the_calendar_is_not_from_a_service():
    members = {name: JOB[name] for name in ("id", "state", "pattern", "solver", "progress")}
    page = {"jobs": [members | {"kind": "masks", "created_at": LATE}], "next": None}
    transport = httpx2.MockTransport(lambda request: httpx2.Response(200, json=page))
    with (
        Client("http://service", transport=transport) as client,
        pytest.raises(WireError, match="not from a masksmith"),
    ):
        list(client.jobs.list())


def test_an_event_of_many_lines_takes_limited_memory():
    parser = EventParser()
    for _ in range(300):
        parser.feed("data: " + "x" * 10_000)
    assert len(parser._data) <= limits.MAX_LINE_BYTES + 1


@pytest.mark.parametrize("piece", [b"x", b":\n"], ids=["a line without end", "comments without end"])
def test_a_stream_without_events_ends_with_the_timeout_of_a_wait(monkeypatch, piece):
    monkeypatch.setattr(events, "POLL_BELOW_S", 0.0)
    pieces = iter(range(500))

    def stream():
        for _ in pieces:
            time.sleep(0.01)
            yield piece

    def answer(request):
        if request.url.path.endswith("/events"):
            return httpx2.Response(200, content=stream())
        return httpx2.Response(200, json=JOB | {"state": "running"})

    with Client("http://service", retry=RetryPolicy(retries=0), transport=httpx2.MockTransport(answer)) as client:
        job = client.jobs.get("j")
        with pytest.raises(TimeoutError):
            job.wait(0.1)
    assert next(pieces, None) is not None


def test_lines_are_split_wherever_the_pieces_end():
    text = "event: state\r\ndata: ä\rid: 1\n\n".encode()
    expected = ["event: state", "data: ä", "id: 1", ""]
    for cut in range(len(text) + 1):
        splitter = LineSplitter()
        assert [*splitter.feed(text[:cut]), *splitter.feed(text[cut:])] == expected


def test_a_list_that_does_not_go_on_ends():
    page = httpx2.Response(200, content=json.dumps({"jobs": [], "next": "x"}).encode())
    with (
        Client("http://service", transport=httpx2.MockTransport(lambda request: page)) as client,
        pytest.raises(WireError, match="does not end"),
    ):
        list(client.jobs.list())


def test_a_message_of_a_service_controls_no_terminal():
    detail = {"title": "t", "status": 400, "code": "c", "detail": "a\x1b]0;x\x07\nb"}
    with pytest.raises(StatusError) as caught:
        solve({"/v1/jobs": httpx2.Response(400, json=detail)})
    assert str(caught.value) == "a\\x1b]0;x\\x07\nb (c)"


@pytest.mark.parametrize(
    "members",
    [
        {"tensors": [JOB["tensors"][0] | {"error": {"code": "c", "message": "m\x1b[2J"}}]},
        {"output": {"location": "/\x1b[2J", "files": [{"name": "f", "state": "failed", "error": ERROR}]}},
    ],
    ids=["tensor", "output"],
)
def test_the_message_of_a_failed_job_controls_no_terminal(members):
    error = JobFailedError(JobView(Job.model_validate(JOB | {"state": "failed"} | members)))
    assert "\\x1b[2J" in str(error)
    assert "\x1b" not in str(error)


@pytest.mark.parametrize(
    ("end", "request_document"),
    [
        ("/output", lambda client: client.jobs.get("j").output()),
        ("/benchmark", lambda client: client.jobs.get("j").benchmark()),
        ("/v1/solvers", lambda client: client.info()),
    ],
)
def test_a_document_of_another_type_is_a_wire_error(end, request_document):
    def answer(request):
        path = request.url.path
        return httpx2.Response(200, json=5 if path.endswith(end) else JOB if "/jobs/" in path else [])

    with (
        Client("http://service", retry=RetryPolicy(retries=0), transport=httpx2.MockTransport(answer)) as client,
        pytest.raises(WireError, match="is not from a masksmith service"),
    ):
        request_document(client)


def test_an_id_that_no_address_can_have_is_an_input_error():
    transport = httpx2.MockTransport(lambda request: httpx2.Response(404))
    with Client("http://service", transport=transport) as client, pytest.raises(InputError, match="malformed"):
        client.jobs.get("x" * 70_000)


@pytest.mark.parametrize(
    ("read", "bytes_per_s"),
    [
        (lambda client: client.jobs.get("j"), limits.DOCUMENT_BYTES_PER_S),
        (lambda client: client.jobs.get("j").masks(), limits.DOWNLOAD_BYTES_PER_S),
    ],
    ids=["document", "download"],
)
@pytest.mark.parametrize("timeout_s", [3.0, None])
def test_a_body_that_arrives_drop_by_drop_has_the_clients_timeout(monkeypatch, read, bytes_per_s, timeout_s):
    """Each piece comes a second after the one before, sooner than any timeout of a read."""
    clock, sent = [0.0], []
    monkeypatch.setattr(limits, "monotonic", lambda: clock[0])

    def drops():
        for _ in range(50):
            clock[0] += 1
            sent.append(bytes(bytes_per_s // 2))
            yield sent[-1]

    def answer(request):
        is_dripping = request.url.path.endswith("/masks" if bytes_per_s == limits.DOWNLOAD_BYTES_PER_S else "/j")
        return httpx2.Response(200, content=drops()) if is_dripping else httpx2.Response(200, json=JOB)

    options = {"transport": httpx2.MockTransport(answer), "retry": RetryPolicy(retries=bool(timeout_s))}
    with Client("http://service", timeout_s=timeout_s, **options) as client, pytest.raises(ClientError) as error:
        read(client)
    # Half a second is added for each second that passes.
    assert len(sent) == (7 if timeout_s else 50)
    assert isinstance(error.value, TimeoutError) is (timeout_s is not None)
    if timeout_s:
        assert "arrives too slowly" in str(error.value)
        assert f"{7 * (bytes_per_s // 2)} bytes in 7 s, with a timeout of 3 s" in str(error.value)
