"""A job as it stands, read in one round trip: clients poll it again and again."""

from __future__ import annotations

from typing import Any, NamedTuple

import redis
from redis.asyncio import Redis

from .model import job_key, parts_key, reports_key


class Snapshot(NamedTuple):
    """What Redis holds of a job: its fields, its shards or cases, and their reports."""

    job: str
    fields: dict[str, str]
    parts: dict[str, str]
    reports: dict[str, str]

    @property
    def owner(self) -> str:
        """The key that made it; empty where none was needed."""
        return self.fields.get("owner", "")


def read_snapshot(client: redis.Redis, job: str) -> Snapshot | None:
    """Read a job at one moment, or None when there is none."""
    with client.pipeline() as pipe:
        return _snapshot(job, _read_all(pipe, job).execute())


async def read_snapshot_soon(client: Redis, job: str) -> Snapshot | None:
    """Read a job at one moment, without a thread; None when there is none."""
    async with client.pipeline() as pipe:
        return _snapshot(job, await _read_all(pipe, job).execute())


def _read_all(pipe: Any, job: str) -> Any:
    for key in (job_key(job), parts_key(job), reports_key(job)):
        pipe.hgetall(key)
    return pipe


def _snapshot(job: str, hashes: list[dict[str, str]]) -> Snapshot | None:
    return Snapshot(job, *hashes) if hashes[0] else None
