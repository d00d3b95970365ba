"""A job's events: parser of the event stream, state to resume the stream, and deadline of a wait."""

from __future__ import annotations

import json
import re
import time
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from masksmith_client._errors import ClientError, StatusError, TimeoutError
from masksmith_wire.documents import Job, JobState, Progress

from .limits import MAX_LINE_BYTES
from .retry import RetryPolicy, is_transient

STREAM_READ_TIMEOUT_S = 30.0
"""Read timeout of an event stream: twice the interval of the service's pings."""

_ID = re.compile(r"[0-9A-Za-z._-]{1,64}")
"""Ids of events that are accepted. Others are ignored, since an id is sent back in a header to resume the stream."""
MAX_SHARDS = 2**53
"""Largest number of shards that a progress can have; a progress with a larger one is ignored."""
POLL_BELOW_S = STREAM_READ_TIMEOUT_S
"""If a wait has less time left than this, it polls the job: a read of a silent stream can block until its timeout."""


@dataclass(frozen=True, slots=True)
class Event:
    """An event of a job, such as its state or its progress.

    Attributes:
        kind: `state`, `progress`, or another kind, which this version does not know.
        data: The document of the event.
        id: Id to resume the stream after this event; None if the service sent none.
    """

    kind: str
    data: dict[str, Any] = field(default_factory=dict)
    id: str | None = None

    @property
    def state(self) -> JobState | None:
        """The job's state; None for other events and for states that this version does not know."""
        value = self.data.get("state") if self.kind == "state" else None
        return JobState(value) if isinstance(value, str) and value in set(JobState) else None

    @property
    def progress(self) -> Progress | None:
        """Number of shards done and in total; None for other events, and if the numbers cannot be read."""
        if self.kind != "progress":
            return None
        try:
            progress = Progress.model_validate(self.data)
        except ValidationError:
            return None
        # Larger numbers are no numbers of shards, and cannot be divided as floats.
        return progress if all(0 <= count <= MAX_SHARDS for count in (progress.done, progress.total)) else None

    @property
    def is_last(self) -> bool:
        """Whether this is the job's last event."""
        return self.state is not None and self.state.is_terminal


def events_of(document: Job) -> list[Event]:
    """Return a job's current progress and state as events."""
    return [
        Event("progress", document.progress.model_dump()),
        Event("state", {"state": document.state.value}),
    ]


class EventParser:
    """Reads server-sent events line by line; an event that is too long, or cannot be read, is left out."""

    def __init__(self) -> None:
        self._kind, self._data = "", ""
        self._id: str | None = None

    def feed(self, line: str) -> Event | None:
        """Parse a line without its line break; returns the event that the line completes, if it is valid, else None."""
        if line:
            self._set_field(*_split(line))
            return None
        kind, text = self._kind or "message", self._data
        self._kind, self._data = "", ""
        try:
            data = json.loads(text) if text else None
        except (ValueError, RecursionError):
            return None
        return Event(kind, data, self._id) if isinstance(data, dict) else None

    def _set_field(self, name: str, value: str) -> None:
        if name == "event":
            self._kind = value
        elif name == "data":
            # Text that is cut here is not valid JSON, so that its event is left out.
            self._data = (self._data + ("\n" if self._data else "") + value)[: MAX_LINE_BYTES + 1]
        elif name == "id" and _ID.fullmatch(value):
            self._id = value


def _split(line: str) -> tuple[str, str]:
    name, _, value = line.partition(":")
    return name, value.removeprefix(" ")


class ResumeState:
    """State of following a job by one event stream after another, each of which resumes after the last event.

    Attributes:
        last_id: Id of the last event that had one; None if none had.
    """

    def __init__(self, policy: RetryPolicy) -> None:
        self.last_id: str | None = None
        self._policy = policy
        self._has_opened = False
        self._events = 0
        self._refused_streams = 0
        self._failures = 0
        self._unreachable_since: float | None = None
        self._next_stream_at = 0.0

    def begin_stream(self) -> str | None:
        """Record that another stream begins; returns the id of the event to resume after, None for all events."""
        self._has_opened, self._events = False, 0
        return self.last_id

    @property
    def may_open_stream(self) -> bool:
        """Whether no `Retry-After` of the service forbids another stream; while one does, the job is polled."""
        return time.monotonic() >= self._next_stream_at

    def record_refusal(self, error: ClientError) -> None:
        """Record the error of a stream: no other is opened until its `Retry-After`, limited to the longest, is over."""
        retry_after_s = (error.retry_after_s or 0.0) if isinstance(error, StatusError) else 0.0
        self._next_stream_at = time.monotonic() + min(retry_after_s, self._policy.longest_retry_after_s)

    @property
    def stream_had_no_event(self) -> bool:
        """Whether the last stream had no event. Then the job is polled, since a proxy may hold the events back."""
        return self._events == 0

    def record(self, event: Event | None) -> None:
        """Record an item of a stream, an event or None: either shows that the service is reachable."""
        self._failures, self._unreachable_since = 0, None
        self._has_opened, self._refused_streams = True, 0
        if event is not None:
            self._events += 1
            self.last_id = event.id or self.last_id

    def record_end(self, error: ClientError | None = None) -> float:
        """Record that a stream ended before the job did; return the pause before the next stream, in seconds.

        Args:
            error: The error of the poll after the stream, or of the stream if no poll followed; None if it had none.

        Raises:
            ClientError: The error, if it is not transient, or the service is unreachable for longer than
                `policy.outage_s`.
        """
        if error is None:
            # The service is reachable. One that refuses streams, as at its limit of streams, is polled less and less.
            self._failures, self._unreachable_since = 0, None
            self._refused_streams += not self._has_opened
            return self._policy.pause_s(max(0, self._refused_streams - 1))
        now = time.monotonic()
        self._unreachable_since = now if self._unreachable_since is None else self._unreachable_since
        if not is_transient(error) or now - self._unreachable_since > self._policy.outage_s:
            raise error
        self._failures += 1
        return self._policy.pause_s(self._failures - 1)


class Deadline:
    """The end of a wait; with a timeout of None it never passes."""

    def __init__(self, timeout_s: float | None) -> None:
        self._end = None if timeout_s is None else time.monotonic() + timeout_s

    @property
    def remaining_s(self) -> float:
        """Seconds left, negative after the deadline; infinite without one."""
        return float("inf") if self._end is None else self._end - time.monotonic()

    @property
    def is_near(self) -> bool:
        """Whether an event stream could block beyond the deadline."""
        return self.remaining_s < POLL_BELOW_S

    def check(self, job: Job) -> None:
        """Check that the deadline has not passed.

        Raises:
            TimeoutError: If it has passed; the message has the job's id, since the job continues.
        """
        if self.remaining_s <= 0:
            raise TimeoutError(
                f"timeout: job {job.id} is still {job.state.value} and continues; "
                f"client.jobs.get({job.id!r}).wait() waits for it"
            )


NO_DEADLINE = Deadline(None)
"""A deadline that never passes."""


def poll_pause_s(polls: int, deadline: Deadline) -> float:
    """Return the pause after this many polls: doubled from 0.05 s to 1.6 s, but not beyond the deadline."""
    return max(0.0, min(0.05 * 2.0 ** min(polls, 5), deadline.remaining_s))
