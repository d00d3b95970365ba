"""Following a job until it ends: event streams that are resumed, and polls where events do not arrive."""

from __future__ import annotations

from masksmith_client._errors import ClientError
from masksmith_client._job_view import JobView
from masksmith_client.transport import calls as calls
from masksmith_client.transport.effects import Close, Emit, Operation, ReadLine, Sleep, Stream
from masksmith_client.transport.events import (
    SILENCE_S,
    Deadline,
    Event,
    EventParser,
    Following,
    events_of,
    poll_pause_s,
)
from masksmith_client.transport.retry import FAILURES, as_client_error
from masksmith_client.transport.session import Session


class EventStream:
    """One stream of a job's events.

    Attributes:
        event: The event that the last line completed, if it did.
        error: What broke the stream, if it did not just end.
    """

    def __init__(self, session: Session, job: str, last_id: str | None) -> None:
        self.event: Event | None = None
        self.error: ClientError | None = None
        self._session = session
        self._call = calls.get_events(job, last_id)
        self._stream: Stream | None = None
        self._parser = EventParser()

    def advance(self) -> Operation[bool]:
        """Open the stream, or read a line of it; False once it has ended or broken."""
        try:
            if self._stream is None:
                self._stream = yield from self._session.open(self._call, SILENCE_S)
                return True
            line = yield from ReadLine(self._stream)
        except FAILURES as error:
            self.error = as_client_error(error, self._session.settings.url)
            return False
        self.event = None if line is None else self._parser.feed(line)
        return line is not None

    def close(self) -> Operation[None]:
        """Close the stream."""
        if self._stream is not None:
            yield from Close(self._stream)


def refresh(session: Session, job: JobView) -> Operation[None]:
    """Read a job's document again."""
    job.document = yield from session.send(calls.get_job(job.id))


def follow(session: Session, job: JobView, deadline: Deadline) -> Operation[None]:
    """Emit a job's events until its last one, across lost connections, or until the deadline is near.

    Raises:
        ClientError: If the job is gone, or the service is out of reach for too long.
    """
    following = Following(session.policy)
    while not deadline.is_near:
        stream = EventStream(session, job.id, following.begin())
        try:
            if (yield from _read(stream, following, deadline)):
                return
        finally:
            yield from stream.close()
        error = stream.error
        if following.is_empty:
            error = yield from _try_refresh(session, job)
            if error is None and job.state.is_terminal:
                return (yield from _emit_state(job))
        yield from Sleep(following.pause_s(error))
    return None


def watch(session: Session, job: JobView, deadline: Deadline) -> Operation[None]:
    """Emit a job's events until it has ended; polls when the deadline is near.

    Raises:
        TimeoutError: If the deadline is over.
    """
    yield from follow(session, job, deadline)
    polls = 0
    yield from refresh(session, job)
    while not job.state.is_terminal:
        deadline.check(job.document)
        yield from _emit_state(job)
        yield from Sleep(poll_pause_s(polls, deadline))
        polls += 1
        yield from refresh(session, job)


def _read(stream: EventStream, following: Following, deadline: Deadline) -> Operation[bool]:
    """Emit the events of one stream; whether there is nothing left to read, or no time."""
    while (yield from stream.advance()):
        following.note(stream.event)
        if stream.event is not None:
            yield from Emit(stream.event)
            if stream.event.is_last:
                return True
        if deadline.is_near:
            return True
    return False


def _try_refresh(session: Session, job: JobView) -> Operation[ClientError | None]:
    try:
        yield from refresh(session, job)
    except ClientError as error:
        return error
    return None


def _emit_state(job: JobView) -> Operation[None]:
    for event in events_of(job.document):
        yield from Emit(event)
