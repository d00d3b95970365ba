import time
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import httpx2
import numpy as np
import pytest

from masksmith_client import (
    Client,
    Conflict,
    ConnectError,
    Event,
    JobFailedError,
    JobState,
    NotFound,
    RetryPolicy,
    TimeoutError,
)
from masksmith_client._progress import Bar
from masksmith_client.transport.events import STREAM_READ_TIMEOUT_S, Deadline, ResumeState

from .conftest import QUICK, FakeService, Pieces, busy, event, problem, refused


@pytest.fixture
def job(client: Client, weights: Any) -> Any:
    return client.jobs.submit(weights, "2:4")


@pytest.fixture
def impatient_job(service: FakeService, job: Any) -> Iterator[Any]:
    """The job, of a client for which an outage lasts too long at the second failure in a row."""
    policy = replace(QUICK, outage_s=0.0)
    with Client("http://service", retry=policy, transport=httpx2.MockTransport(service)) as client:
        yield client.jobs.get(job.id)


def test_events_are_told_from_the_beginning_to_the_end(job: Any) -> None:
    assert [(e.kind, e.id) for e in job.events()] == [("state", "1-0"), ("progress", "2-0"), ("state", "3-0")]
    assert job.refresh().state is JobState.SUCCEEDED


def test_a_dropped_stream_is_resumed_after_the_last_event(service: FakeService, job: Any) -> None:
    service.streams = [
        Pieces(event("1-0", "state", state="running"), event("2-0", "progress", done=1, total=2), cut=True),
        Pieces(b": ping\n\n", event("3-0", "progress", done=2, total=2)),
        Pieces(event("4-0", "state", state="succeeded")),
    ]
    assert [e.id for e in job.events()] == ["1-0", "2-0", "3-0", "4-0"]
    asked = [r.headers.get("last-event-id") for r in service.requests if r.url.path.endswith("/events")]
    assert asked == [None, "2-0", "3-0"]


@pytest.mark.parametrize("faults", [[refused] * 5, [busy] * 2], ids=["restart", "busy"])
def test_events_survive_an_outage(service: FakeService, job: Any, faults: Any) -> None:
    service.fail("GET", f"/v1/jobs/{job.id}/events", *faults)
    assert [e.id for e in job.events()] == ["1-0", "2-0", "3-0"]


def test_an_outage_that_lasts_is_an_error(service: FakeService, impatient_job: Any) -> None:
    service.fail("GET", f"/v1/jobs/{impatient_job.id}", *[refused] * 100)
    with pytest.raises(ConnectError):
        list(impatient_job.events())


def test_a_stream_that_ends_without_its_last_event_is_asked_about(service: FakeService, job: Any) -> None:
    service.finish(job.id)
    service.streams = [Pieces(event("1-0", "state", state="running")), Pieces()]
    assert [e.state for e in job.events() if e.kind == "state"] == [JobState.RUNNING, JobState.SUCCEEDED]


def test_events_of_kinds_to_come_and_rubbish_do_no_harm(service: FakeService, job: Any) -> None:
    service.streams = [
        Pieces(b"event: novelty\ndata: {}\n\ndata: not json\n\nretry: 10\n\n", event("1", "state", state="thinking")),
        Pieces(event("2", "state", state="succeeded")),
    ]
    assert list(job.events())[-1] == Event("state", {"state": "succeeded"}, "2")


def test_lines_may_arrive_in_any_pieces(service: FakeService, job: Any) -> None:
    data = event("1-0", "state", state="succeeded")
    service.streams = [Pieces(*[data[i : i + 1] for i in range(len(data))])]
    assert [e.is_last for e in job.events()] == [True]


def broken_stream(request: httpx2.Request) -> httpx2.Response:
    raise httpx2.RemoteProtocolError("peer closed connection without sending complete message body")


def test_a_service_whose_events_never_come_is_polled(service: FakeService, job: Any) -> None:
    service.fail("GET", f"/v1/jobs/{job.id}/events", *[broken_stream] * 20)
    polls = 0

    def poll(request: httpx2.Request) -> httpx2.Response:
        nonlocal polls
        polls += 1
        if polls == 5:
            service.finish(job.id)
        return httpx2.Response(200, content=service.jobs[job.id].model_dump_json())

    service.fail("GET", f"/v1/jobs/{job.id}", *[poll] * 5)
    assert list(job.events())[-1].state is JobState.SUCCEEDED
    assert polls == 5


def test_quiet_streams_that_break_are_no_outage(service: FakeService, impatient_job: Any) -> None:
    service.streams = [Pieces(cut=True) for _ in range(20)]
    assert [e.id for e in impatient_job.events()] == ["1-0", "2-0", "3-0"]
    assert service.count("GET", f"/v1/jobs/{impatient_job.id}/events") == 21


def test_polls_beside_refused_streams_become_rarer() -> None:
    policy = RetryPolicy()
    resume = ResumeState(policy)
    pauses = []
    for _ in range(8):
        resume.begin_stream()  # The service refuses the stream, and answers the poll after it.
        pauses.append(resume.record_end())
    assert pauses[0] <= policy.first_s
    assert all(policy.longest_s / 2 <= pause <= policy.longest_s for pause in pauses[4:])
    resume.begin_stream()
    resume.record(None)
    assert resume.record_end() <= policy.first_s


def test_an_answered_poll_ends_an_outage(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1.0
    monkeypatch.setattr("masksmith_client.transport.events.time", SimpleNamespace(monotonic=lambda: now))
    resume = ResumeState(RetryPolicy(outage_s=120.0))
    resume.record_end(ConnectError("refused"))
    now = 60.0
    resume.record_end()
    now = 130.0
    assert resume.record_end(ConnectError("refused")) <= 0.5


def test_a_job_deleted_meanwhile_ends_the_wait(service: FakeService, job: Any) -> None:
    service.streams = [Pieces(event("1-0", "state", state="running"))]
    del service.jobs[job.id]
    with pytest.raises(NotFound):
        job.wait()


def test_waiting_tells_every_event(job: Any) -> None:
    seen: list[Event] = []
    assert job.wait(on_event=seen.append).state is JobState.SUCCEEDED
    assert [e.kind for e in seen] == ["state", "progress", "state"]


def test_short_waits_poll_and_end_in_time(service: FakeService, job: Any) -> None:
    began = time.monotonic()
    with pytest.raises(TimeoutError, match=job.id):
        job.wait(0.3)
    assert time.monotonic() - began > 0.25
    assert service.count("GET", f"/v1/jobs/{job.id}") > 1
    assert service.count("GET", f"/v1/jobs/{job.id}/events") == 0, "a stream could last beyond the end"


def test_our_timeout_is_the_builtin_one_too(job: Any) -> None:
    import builtins

    with pytest.raises(builtins.TimeoutError):
        job.wait(0.0)


def test_a_canceled_job_ends_the_wait_with_an_error(client: Client, service: FakeService, job: Any) -> None:
    client.jobs.cancel(job.id)
    service.streams = [Pieces(event("1-0", "state", state="canceled"))]
    with pytest.raises(JobFailedError, match="canceled"):
        job.wait()


def test_masks_of_a_live_job_are_a_conflict(job: Any) -> None:
    with pytest.raises(Conflict):
        job.masks()


def test_jobs_found_by_id_give_numpy_masks(client: Client, service: FakeService, job: Any) -> None:
    service.finish(job.id)
    masks = client.jobs.get(job.id).masks()
    assert all(isinstance(mask, np.ndarray) for mask in masks.values())


def test_all_pages_are_gone_through(client: Client, service: FakeService, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("masksmith_client.operations.jobs.PAGE_SIZE", 3)
    for number in range(8):
        client.jobs.submit({"w": np.full((4, 4), float(number))}, "2:4")
    assert [summary.id for summary in client.jobs.list()] == [f"job{n}" for n in range(7, -1, -1)]
    assert len(list(client.jobs.list(limit=4))) == 4
    assert list(client.jobs.list(limit=0)) == []


def test_deleted_jobs_are_gone(client: Client, job: Any) -> None:
    job.delete()
    with pytest.raises(NotFound):
        client.jobs.delete(job.id)


def test_silence_is_a_dead_connection(service: FakeService, job: Any) -> None:
    list(job.events())
    asked = next(r for r in service.requests if r.url.path.endswith("/events"))
    assert asked.extensions["timeout"]["read"] == STREAM_READ_TIMEOUT_S


def test_no_stream_is_read_that_could_be_silent_beyond_the_deadline() -> None:
    assert Deadline(STREAM_READ_TIMEOUT_S - 0.1).is_near
    assert not Deadline(STREAM_READ_TIMEOUT_S + 5).is_near


def test_interrupting_a_stream_closes_it(service: FakeService, job: Any) -> None:
    events = job.events()
    assert isinstance(next(events), Event)
    events.close()
    assert isinstance(service.requests[-1], httpx2.Request)


def test_no_stream_is_opened_before_the_time_that_a_refusal_names(
    service: FakeService, job: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = SimpleNamespace(now=0.0)

    def full(request: httpx2.Request) -> httpx2.Response:
        clock.now += 1.0
        return problem(503, "overloaded", "too many streams", {"retry-after": "20"})

    def polled(request: httpx2.Request) -> httpx2.Response:
        clock.now += 4.0
        return httpx2.Response(200, json=job.document.model_dump(mode="json"))

    monkeypatch.setattr("masksmith_client.transport.events.time.monotonic", lambda: clock.now)
    monkeypatch.setattr("masksmith_client.transport.blocking_session.BlockingSession.sleep", _no_sleep)
    before = service.count("GET", f"/v1/jobs/{job.id}/events")
    service.fail("GET", f"/v1/jobs/{job.id}/events", full)
    service.fail("GET", f"/v1/jobs/{job.id}", *[polled] * 5)
    assert [e.id for e in job.events()] == ["1-0", "2-0", "3-0"]
    assert service.count("GET", f"/v1/jobs/{job.id}/events") - before == 2
    assert clock.now == 21.0


async def _no_sleep(self: Any, seconds: float) -> None:
    pass


@pytest.mark.parametrize("count", [10**400, -1], ids=["huge", "negative"])
def test_a_progress_that_cannot_be_shown_is_left_out(count: int) -> None:
    assert Event("progress", {"done": 1, "total": count}).progress is None
    assert Event("progress", {"done": count, "total": 10**400}).progress is None
    with Bar("job", 0, show=False) as bar:
        bar.on_event(Event("progress", {"done": 1, "total": count}))
        assert "0 of 0" in bar.status()
