"""Decides which queued shard a worker takes: API keys share the workers by weight; a key's jobs go by priority.

The decision is one atomic script over everything that is queued; see `lua/_scheduling.lua` and `lua/take_next.lua`.
Messages in the broker only say that a queue has work.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any, cast

import redis

from masksmith_state.errors import UnreadableRecordError
from masksmith_state.queue import role_and_device
from masksmith_state.scripts import Scripts
from masksmith_wire.documents import QueuePosition
from masksmith_wire.errors import Code, TensorError

from .model import Lease
from .redis_keys import LIVE
from .reports import ShardReport
from .unreadable_records import as_unreadable_record_errors, set_aside_job

log = logging.getLogger(__name__)

AGE_S = 30.0
"""If no shard of a job was taken for this many seconds, the job goes before the other jobs of its key.

Of two shards that are taken from a key one after the other, at most one is taken for this reason. So a job of low
priority still makes progress while jobs of higher priority keep coming.
"""

EXAMINED_JOBS = 100
"""Limit of the jobs that are examined to find the position of a job; the broker examines them in less than 1 ms."""


class Schedule:
    """The queued shards of all jobs.

    Args:
        client: Redis client, with `decode_responses`.
        scripts: The scripts of job records.
    """

    def __init__(self, client: redis.Redis, scripts: Scripts) -> None:
        self._redis, self._scripts = client, scripts

    def take(
        self, queue: str, *, lease_s: float, attempts: int, worker: str = "", slots: int = 1, age_s: float = AGE_S
    ) -> Lease | None:
        """Take the shard that is due, and count an attempt at it; jobs whose records cannot be read are set aside.

        Args:
            queue: Queue of the shard.
            lease_s: Seconds that the lease lasts without renewal.
            attempts: Limit of attempts at a shard; a shard with no attempt left fails here, and the next one is taken.
            worker: Name of the worker; a worker with several slots keeps one slot free of long shards.
            slots: Number of the worker's slots.
            age_s: See `AGE_S`.

        Returns:
            The lease of the shard; None if no shard is due for this worker.
        """
        report = exhausted_report(attempts, queue)
        args: list[str | float] = [queue, worker, slots, int(lease_s * 1000), attempts, report, age_s]
        while True:
            token, *values = self._scripts.run("take_next", *args)
            if token:
                return _lease(token, values)
            if values[0] != "unreadable":
                return None
            set_aside_job(self._redis, values[1], values[2])

    def requeue_lapsed_shards(self) -> Iterator[tuple[str, int]]:
        """Queue again the shards whose lease has lapsed, and yield the job and the index of each."""
        for job in self._live():
            for shard in self._run("requeue", job) or ():
                yield job, int(shard)

    def move_jobs(self, queue: str, other: str) -> list[str]:
        """Move the live jobs of a queue to another queue, and return their ids."""
        return [job for job in self._live() if self._run("move", job, queue, other)]

    def messages_wanted(self, queue: str) -> int:
        """Number of messages that a queue lacks."""
        return int(self._scripts.run("messages_wanted", queue))

    def depth(self, queue: str) -> int:
        """Number of queued shards of a queue."""
        return int(self._scripts.run("depth", queue))

    def position(self, job: str) -> QueuePosition | None:
        """Estimate when the first shard of a queued job is taken.

        None if the job has no queued shard; also None if the record of this job, or of a job ahead of it, cannot be
        read.
        """
        try:
            with as_unreadable_record_errors(job):
                reply = self._scripts.run("position", job, EXAMINED_JOBS)
                if not reply:
                    return None
                jobs_ahead, seconds = reply
                # The script subtracts estimates from a sum of estimates, so the result may be slightly negative.
                starts_in_s = max(0.0, float(seconds)) if seconds else None
                return QueuePosition(jobs_ahead=int(jobs_ahead), starts_in_s=starts_in_s)
        except UnreadableRecordError as error:
            log.info("the position of job %s is unknown: %s", job, error.reason)
            return None

    def _live(self) -> list[str]:
        return sorted(cast("set[str]", self._redis.smembers(LIVE)))

    def _run(self, script: str, job: str, *args: str) -> Any:
        """Run a script on a job; if a record cannot be read, or is lost, set its job aside, and return None."""
        try:
            with as_unreadable_record_errors(job):
                return self._scripts.run(script, job, *args)
        except UnreadableRecordError as error:
            set_aside_job(self._redis, error.job, error.reason)
            return None


def exhausted_report(attempts: int, queue: str) -> str:
    """Report of a shard of a queue with no attempt left, as JSON.

    Its device is that of the queue's workers, `cpu` or `cuda`: a worker that died has not reported which one it used.
    """
    message = f"its worker died or ran out of memory or time {attempts} times; try smaller shards or another solver"
    error = TensorError(code=Code.ATTEMPTS_EXHAUSTED, message=message)
    return ShardReport(error=error, device=role_and_device(queue)[1]).model_dump_json()


def _lease(token: str, values: list[Any]) -> Lease:
    """Parse the reply of `lua/take_next.lua`; its member `pool` is `:long` for a long shard, and empty for others."""
    attempt, elapsed_s, job, shard, pool, messages_wanted = values
    return Lease(
        job=job,
        shard=int(shard),
        token=token,
        attempt=int(attempt),
        elapsed_s=float(elapsed_s),
        is_long=bool(pool),
        messages_wanted=messages_wanted,
    )
