"""Events: a job's stream in Redis, read as it grows."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from threading import Event as Flag
from typing import Any, NamedTuple

from redis.asyncio import Redis

from masksmith_state.jobs.redis_keys import events_key, job_key
from masksmith_wire.documents import JobState

BLOCK_MS = 2000
MAX_FOLLOWERS = 10_000


class Event(NamedTuple):
    """One event; `id` is where to resume."""

    id: str
    kind: str
    data: dict[str, Any]

    @property
    def is_last(self) -> bool:
        """Whether nothing can follow."""
        return self.kind == "state" and JobState(self.data["state"]).is_terminal


async def follow(
    client: Redis, job: str, closing: Flag, is_welcome: Callable[[], Awaitable[bool]], after: str = "0-0"
) -> AsyncIterator[Event]:
    """Yield a job's events after the one named, until its last.

    Ends as well where none can come, because the job is over or deleted, when the service is `closing`, and within
    seconds once whoever follows is welcome no more.
    """
    while not closing.is_set() and await is_welcome():
        batch = await _read(client, job, after, BLOCK_MS)
        for event in batch:
            after = event.id
            yield event
            if event.is_last:
                return
        if not batch and await is_over(client, job):
            return


async def _read(client: Redis, job: str, after: str, block_ms: int) -> list[Event]:
    key = events_key(job)
    answer: Any = await client.xread({key: after}, count=256, block=block_ms)
    if not answer:
        return []
    # RESP3 answers a map of streams, RESP2 a list of pairs.
    entries = answer[key] if isinstance(answer, dict) else answer[0][1]
    if isinstance(answer, dict) and len(entries) == 1 and isinstance(entries[0], list):
        entries = entries[0]
    return [Event(identifier, fields["event"], json.loads(fields["data"])) for identifier, fields in entries]


async def is_over(client: Redis, job: str) -> bool:
    """Whether a job has ended, or is none."""
    state: Any = await client.hget(job_key(job), "state")
    return state is None or JobState(state).is_terminal
