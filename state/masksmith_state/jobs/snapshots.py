"""Reads everything that Redis holds about a job in one round trip, for clients that poll."""

from __future__ import annotations

from typing import Any, NamedTuple

import redis
from redis.asyncio import Redis

from .redis_keys import job_key, parts_key, reports_key
from .unreadable_records import reading


class Snapshot(NamedTuple):
    """The unparsed record of a job: its fields, its shards or cases, and their reports."""

    job: str
    fields: dict[str, str]
    parts: dict[str, str]
    reports: dict[str, str]

    @property
    def owner(self) -> str:
        """The key that created the job; empty if no key was required."""
        return self.fields.get("owner", "")


def read_snapshot(client: redis.Redis, job: str) -> Snapshot | None:
    """Read a job; None if there is no such job."""
    with reading(job), client.pipeline() as pipe:
        return _snapshot(job, _read_all(pipe, job).execute())


async def read_snapshot_async(client: Redis, job: str) -> Snapshot | None:
    """Read a job on the event loop; None if there is no such job."""
    with reading(job):
        async with client.pipeline() as pipe:
            return _snapshot(job, await _read_all(pipe, job).execute())


def _read_all(pipe: Any, job: str) -> Any:
    for key in (job_key(job), parts_key(job), reports_key(job)):
        pipe.hgetall(key)
    return pipe


def _snapshot(job: str, hashes: list[dict[str, str]]) -> Snapshot | None:
    return Snapshot(job, *hashes) if hashes[0] else None
