"""Following a job until it ends: event streams that are resumed, and polls where events do not arrive."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from masksmith_client._errors import ClientError
from masksmith_client._job_view import JobView
from masksmith_client.transport import calls as calls
from masksmith_client.transport.events import Deadline, Event, Following, events_of, poll_pause_s
from masksmith_client.transport.session import Session


async def refresh(session: Session, job: JobView) -> None:
    """Read a job's document again."""
    job.document = await session.send(calls.get_job(job.id))


async def follow(session: Session, job: JobView, deadline: Deadline) -> AsyncGenerator[Event, None]:
    """Give a job's events until its last one, across lost connections, or until the deadline is near.

    Raises:
        ClientError: If the job is gone, or the service is out of reach for too long.
    """
    following = Following(session.policy)
    while not deadline.is_near:
        error: ClientError | None = None
        try:
            async with aclosing(session.events(calls.get_events(job.id, following.begin()))) as events:
                async for event in events:
                    following.note(event)
                    if event is not None:
                        yield event
                    if deadline.is_near or (event is not None and event.is_last):
                        return
        except ClientError as broken:
            error = broken
        if following.is_empty:
            error = await _try_refresh(session, job)
            if error is None and job.state.is_terminal:
                for event in events_of(job.document):
                    yield event
                return
        await session.sleep(following.pause_s(error))


async def watch(session: Session, job: JobView, deadline: Deadline) -> AsyncGenerator[Event, None]:
    """Give a job's events until it has ended; polls when the deadline is near.

    Raises:
        TimeoutError: If the deadline is over.
    """
    async with aclosing(follow(session, job, deadline)) as events:
        async for event in events:
            yield event
    polls = 0
    await refresh(session, job)
    while not job.state.is_terminal:
        deadline.check(job.document)
        for event in events_of(job.document):
            yield event
        await session.sleep(poll_pause_s(polls, deadline))
        polls += 1
        await refresh(session, job)


async def _try_refresh(session: Session, job: JobView) -> ClientError | None:
    try:
        await refresh(session, job)
    except ClientError as error:
        return error
    return None
