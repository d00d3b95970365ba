"""Follow a job until it ends: resume its event stream after lost connections, and poll if no events arrive."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

from masksmith_client._errors import ClientError
from masksmith_client._job_view import JobView
from masksmith_client.transport import calls
from masksmith_client.transport.events import NO_DEADLINE, Deadline, Event, ResumeState, events_of, poll_pause_s
from masksmith_client.transport.session import ServiceSession
from masksmith_wire.documents import Job, JobState

POLLS_BEFORE_NOTE = 4
"""Polls of a queued job before a note shows what it waits for; most jobs start sooner."""


async def refresh(session: ServiceSession, job: JobView, deadline: Deadline = NO_DEADLINE) -> None:
    """Update a job's document from the service; raises as `ServiceSession.send` does."""
    job.document = await session.send(calls.get_job(job.id), deadline)


async def wait_for_start(
    session: ServiceSession, job: JobView, deadline: Deadline, note: Callable[[str], None]
) -> None:
    """Poll a job while it has a position in the queue; pass the position, or that no worker takes the job, to `note`.

    At the end, an empty text is passed. Returns early if the deadline is near, and at once if the service does not know
    positions.
    """
    polls = 0
    while job.state is JobState.QUEUED and job.document.position is not None and not deadline.is_near:
        if polls >= POLLS_BEFORE_NOTE:
            # The full text of `waiting_for` is too long for a progress bar.
            note("waits for a worker" if job.document.waiting_for is not None else queue_note(job.document))
        await session.sleep(poll_pause_s(polls, deadline))
        polls += 1
        await refresh(session, job, deadline)
    note("")


def queue_note(document: Job) -> str:
    """Say what a queued job waits for: a worker if no live one takes it, else its turn, with its position if known."""
    if document.waiting_for is not None:
        return f"waits: {document.waiting_for}"
    return "queued" if document.position is None else f"queued: {document.position}"


async def stream_events(session: ServiceSession, job: JobView, deadline: Deadline) -> AsyncGenerator[Event, None]:
    """Yield a job's events until its last one or until the deadline is near, over as many streams as it takes.

    After a stream without an event the job is polled; if it has ended, its progress and state are the last events. The
    job is also polled while a `Retry-After` of the service forbids another stream.

    Raises:
        ClientError: If the job does not exist any more, or the service is unreachable for too long.
    """
    resume = ResumeState(session.policy)
    while not deadline.is_near:
        error: ClientError | None = None
        last_id = resume.begin_stream()
        if resume.may_open_stream:
            try:
                async with aclosing(session.events(calls.get_events(job.id, last_id))) as events:
                    async for event in events:
                        resume.record(event)
                        if event is not None:
                            yield event
                        if deadline.is_near or (event is not None and event.is_last):
                            return
            except ClientError as stream_error:
                error = stream_error
                resume.record_refusal(error)
        if resume.stream_had_no_event:
            # A poll that succeeds shows that the service is reachable, whatever ended the stream.
            error = await _try_refresh(session, job, deadline)
            if error is None and job.state.is_terminal:
                for event in events_of(job.document):
                    yield event
                return
        pause_s = resume.record_end(error)
        await session.sleep(max(0.0, min(pause_s, deadline.remaining_s)))


async def events_until_end(session: ServiceSession, job: JobView, deadline: Deadline) -> AsyncGenerator[Event, None]:
    """Yield a job's events until it has ended.

    Near the deadline the job is polled instead. After each poll, the progress and state of a job that has not ended are
    yielded as events; a poll that finds that the job has ended yields nothing. When the iteration ends, `job` has the
    document of the ended job.

    Raises:
        TimeoutError: If the deadline passes before the job has ended.
        ClientError: As in `stream_events`, or if a poll fails.
    """
    async with aclosing(stream_events(session, job, deadline)) as events:
        async for event in events:
            yield event
    polls = 0
    await refresh(session, job, deadline)
    while not job.state.is_terminal:
        deadline.check(job.document)
        for event in events_of(job.document):
            yield event
        await session.sleep(poll_pause_s(polls, deadline))
        polls += 1
        await refresh(session, job, deadline)


async def _try_refresh(session: ServiceSession, job: JobView, deadline: Deadline) -> ClientError | None:
    """Update a job's document from the service; return the `ClientError` if that fails, else None."""
    try:
        await refresh(session, job, deadline)
    except ClientError as error:
        return error
    return None
