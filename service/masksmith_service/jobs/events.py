"""Reads a job's events from its Redis stream, and follows the stream as it grows."""

from __future__ import annotations

import logging
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, NamedTuple

import redis
from redis.asyncio import Redis

from masksmith_state.errors import UnreadableRecordError
from masksmith_state.jobs.redis_keys import events_key, job_key
from masksmith_state.jobs.unreadable_records import as_unreadable_record_errors
from masksmith_wire.documents import JobState
from masksmith_wire.json_text import parse_json

log = logging.getLogger(__name__)

BLOCK_MS = 2000
"""Milliseconds that a read of the stream waits for an event, while the job may have more."""


class JobEvent(NamedTuple):
    """An event of a job; the stream can be resumed after its `id`."""

    id: str
    kind: str
    data: dict[str, Any]

    @property
    def is_last(self) -> bool:
        """Whether this is the last event of the job."""
        return self.kind == "state" and JobState(self.data["state"]).is_terminal


async def follow(
    client: Redis,
    job: str,
    stop_event: threading.Event,
    is_authorized: Callable[[], Awaitable[bool]],
    after: str = "0-0",
) -> AsyncIterator[JobEvent]:
    """Yield a job's events after the event with the id `after`, until the job's last one.

    Ends earlier if the job or its events cannot be read, or the broker does not answer; if the job has ended or was
    deleted, and there are no more events; if `stop_event` is set; or if `is_authorized` returns False. The last two are
    checked before each read of the stream, which takes up to `BLOCK_MS`.
    """
    try:
        async for event in _follow(client, job, stop_event, is_authorized, after):
            yield event
    except UnreadableRecordError as error:
        # The response has begun, so the error cannot be its status.
        log.error("%s", ascii(str(error)))
    except redis.RedisError as error:
        log.warning("the events of job %s end early: %s", job, error)


async def _follow(
    client: Redis, job: str, stop_event: threading.Event, is_authorized: Callable[[], Awaitable[bool]], after: str
) -> AsyncIterator[JobEvent]:
    """Yield a job's events as `follow` does; raises UnreadableRecordError if they, or the job, cannot be read."""
    may_have_more = True  # Whether the stream may have events that were not read.
    while may_have_more and not stop_event.is_set() and await is_authorized():
        # An ended job gets no more events, but its last ones may have come after the previous read.
        may_have_more = not await has_ended(client, job)
        for identifier, fields in await _read(client, job, after, BLOCK_MS if may_have_more else None):
            after, may_have_more = identifier, True
            event = _parse(identifier, fields)
            if event is None:
                continue
            yield event
            if event.is_last:
                return


async def _read(client: Redis, job: str, after: str, block_ms: int | None) -> list[tuple[str, dict[str, str]]]:
    """Read the ids and fields of the next events, at most 256."""
    key = events_key(job)
    with as_unreadable_record_errors(job):
        reply: Any = await client.xread({key: after}, count=256, block=block_ms)
    if not reply:
        return []
    if isinstance(reply, dict):  # RESP3: a map of streams; the list of entries may be wrapped in a list of one element.
        entries = reply[key]
        if len(entries) == 1 and isinstance(entries[0], list):
            entries = entries[0]
    else:  # RESP2: a list of pairs of stream and entries.
        entries = reply[0][1]
    return list(entries)


def _parse(identifier: str, fields: dict[str, str]) -> JobEvent | None:
    """Parse an event; None if it cannot be read."""
    try:
        event = JobEvent(identifier, fields["event"], parse_json(fields["data"]))
        _ = event.is_last  # Raises an error if the event lacks a valid state.
    except (KeyError, TypeError, ValueError):
        log.warning("event %s cannot be read", identifier)
        return None
    return event


async def has_ended(client: Redis, job: str) -> bool:
    """Whether a job has ended, or does not exist; raises UnreadableRecordError if its state cannot be read."""
    with as_unreadable_record_errors(job):
        state: Any = await client.hget(job_key(job), "state")
        return state is None or JobState(state).is_terminal
