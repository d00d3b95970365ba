"""Reads a job in one round trip, for clients that poll: its record, its shards or cases, and their reports."""

from __future__ import annotations

from typing import Any, NamedTuple

import redis
from redis.asyncio import Redis

from masksmith_state.queue import CPU_QUEUE, QUEUES
from masksmith_state.worker_registry import served_key
from masksmith_wire.documents import JobState

from .redis_keys import job_key, parts_key, reports_key, taken_key
from .unreadable_records import as_unreadable_record_errors


class Snapshot(NamedTuple):
    """The record of a job, with its shards or cases and their reports, not parsed.

    Attributes:
        job: Id of the job.
        fields: Fields of the job's hash.
        parts: Its shards or cases, by index.
        reports: Reports of the finished shards or cases, by index.
        taken_fields: Fields of the hash of taken shards or cases: their indices, as text.
        served_queues: The queues that at least one living worker consumes.
    """

    job: str
    fields: dict[str, str]
    parts: dict[str, str]
    reports: dict[str, str]
    taken_fields: frozenset[str] = frozenset()
    served_queues: frozenset[str] = frozenset(QUEUES)

    @property
    def taken_indices(self) -> frozenset[int]:
        """Indices of the shards or cases that workers have taken and not finished; empty unless the job is running."""
        if self.fields["state"] != JobState.RUNNING:
            return frozenset()
        return frozenset(map(int, self.taken_fields))

    @property
    def is_queued(self) -> bool:
        """Whether the job has not ended, and no worker has taken a shard or case of it yet."""
        return self.fields["state"] == JobState.QUEUED

    @property
    def unserved_queue(self) -> str | None:
        """The job's queue, if the job is live and no living worker consumes the queue; else None."""
        queue = self.fields.get("queue", CPU_QUEUE)
        is_waiting = not JobState(self.fields["state"]).is_terminal and queue not in self.served_queues
        return queue if is_waiting else None

    @property
    def owner(self) -> str:
        """Id of the key that created the job; empty if no key was required."""
        return self.fields.get("owner", "")


def read_snapshot(client: redis.Redis, job: str) -> Snapshot | None:
    """Read a job; None if there is no such job."""
    with as_unreadable_record_errors(job), client.pipeline() as pipe:
        return _snapshot(job, _add_commands(pipe, job).execute())


async def read_snapshot_async(client: Redis, job: str) -> Snapshot | None:
    """Read a job on the event loop; None if there is no such job."""
    with as_unreadable_record_errors(job):
        async with client.pipeline() as pipe:
            return _snapshot(job, await _add_commands(pipe, job).execute())


def _add_commands(pipe: Any, job: str) -> Any:
    """Add the commands whose replies `_snapshot` parses, in the same order."""
    for key in (job_key(job), parts_key(job), reports_key(job)):
        pipe.hgetall(key)
    pipe.hkeys(taken_key(job))
    pipe.mget([served_key(queue) for queue in QUEUES])
    return pipe


def _snapshot(job: str, replies: list[Any]) -> Snapshot | None:
    fields, parts, reports, taken_fields, worker_names = replies
    if not fields:
        return None
    JobState(fields["state"])  # raises an error if the state, which properties read, is missing or unknown
    served_queues = frozenset(queue for queue, worker in zip(QUEUES, worker_names, strict=True) if worker is not None)
    return Snapshot(job, fields, parts, reports, frozenset(taken_fields), served_queues)
