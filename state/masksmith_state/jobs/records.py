"""Job records in Redis: the truth about every job, changed only by the atomic scripts in `lua`."""

from __future__ import annotations

import json
import math
import re
import secrets
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, cast

import redis

from masksmith_state.errors import FullError, MissingUploadError
from masksmith_state.queue import CPU_QUEUE
from masksmith_state.scripts import Scripts
from masksmith_state.telemetry import counters
from masksmith_state.worker_registry import WorkerRegistry
from masksmith_wire.benchmarks import BenchmarkPlan, BenchWorker, CaseReport, PlannedCase
from masksmith_wire.documents import JobState, WorkerInfo
from masksmith_wire.errors import TensorError

from .model import Admission, JobRecord, Lease, Plan, ShardReport, by_index, job_key, parts_key, record_of, reports_key
from .shards import Shard

JOBS, LIVE, FINISHED = "masksmith:jobs", "masksmith:live", "masksmith:finished"
ENDED = "masksmith:ended"
"""Channel that receives the id of every job that ends."""
STRANDED_AT_ONCE = 1000
STAMP_DIGITS = 11


class JobRecords:
    """Reads and changes job records; every change is one atomic script.

    Args:
        url: Of the Redis server, `redis://` or `unix://`.
    """

    def __init__(self, url: str) -> None:
        self.redis = redis.Redis.from_url(
            url, decode_responses=True, socket_connect_timeout=3, socket_timeout=10, health_check_interval=10
        )
        self.workers = WorkerRegistry(self.redis, "masksmith:workers", WorkerInfo)
        self.bench_workers = WorkerRegistry(self.redis, "masksmith:bench-workers", BenchWorker)
        self._scripts = Scripts(self.redis, __package__)

    def create(
        self,
        plan: Plan | BenchmarkPlan,
        shards: Sequence[Shard] | Sequence[PlannedCase],
        idempotency_key: str = "",
        fingerprint: str = "",
        admission: Admission | None = None,
        queue: str = CPU_QUEUE,
    ) -> tuple[str, bool] | None:
        """Write a job with all its shards pending.

        Args:
            plan: What is to be done.
            shards: Its parts.
            idempotency_key: The same key of the same owner gives the same job, for a day, however full it is.
            fingerprint: What must then be the same, too.
            admission: Owner and limits; by default there is neither.
            queue: Whose workers do it.

        Returns:
            The job's id and whether it is new, or None when the idempotency key belongs to another request.

        Raises:
            FullError: If there are too many live jobs, or bytes kept.
            MissingUploadError: If an upload is not here.
        """
        terms = admission or Admission()
        new = f"{int(datetime.now(UTC).timestamp() * 1000):0{STAMP_DIGITS}x}{secrets.token_hex(8)}"
        fields = {
            "kind": "masks" if isinstance(plan, Plan) else "benchmark",
            "plan": plan.model_dump_json(),
            "queue": queue,
            **plan.headline,
        }
        texts = [shard.model_dump_json() for shard in shards]
        limits = {"full": terms.most, "quota": terms.most_of_owner, "bytes": terms.most_bytes}
        args: list[str | int] = [
            new,
            json.dumps(fields),
            json.dumps(texts),
            idempotency_key,
            fingerprint,
            terms.owner,
            *(-1 if limit is None else limit for limit in limits.values()),
            json.dumps(plan.uploads),
            terms.senders or "",
            plan.result_bytes,
        ]
        outcome = str(self._scripts.run("create", *args))
        if outcome in limits:
            raise FullError(outcome, limits[outcome] or 0)
        if outcome.startswith("missing:"):
            raise MissingUploadError(outcome.removeprefix("missing:"))
        return None if outcome == "conflict" else (outcome, outcome == new)

    def read(self, job: str) -> JobRecord | None:
        """Read a job, or None when there is none."""
        fields = cast("dict[str, str]", self.redis.hgetall(job_key(job)))
        return record_of(job, fields) if fields else None

    def state(self, job: str) -> JobState | None:
        """Read a job's state alone."""
        state = cast("str | None", self.redis.hget(job_key(job), "state"))
        return JobState(state) if state else None

    def owner(self, job: str) -> str | None:
        """Read whose job it is, or None when there is none."""
        state, owner = cast("list[str | None]", self.redis.hmget(job_key(job), ["state", "owner"]))
        return None if state is None else owner or ""

    def summaries(self, after: str | None, limit: int, owner: str | None = None) -> list[dict[str, Any]]:
        """Read the headers of up to `limit` jobs, newest first, older than job `after`; all, or those of one owner."""
        index = JOBS if owner is None else f"masksmith:owner:{owner}:jobs"
        start = 0 if after is None else self._place(index, after)
        ids = cast("list[str]", self.redis.zrevrange(index, start, start + limit - 1))
        names = ["kind", "state", "pattern", "solver", "created_at", "finished_at", "done", "total"]
        pipe = self.redis.pipeline(transaction=False)
        for job in ids:
            pipe.hmget(job_key(job), names)
        rows = zip(ids, pipe.execute(), strict=True)
        return [dict(zip(names, row, strict=True), id=job) for job, row in rows if row[0] is not None]

    def _place(self, index: str, after: str) -> int:
        """Count the jobs down to and including `after`; a deleted one's id says when it was created, to about 0.1 s."""
        rank = cast("int | None", self.redis.zrevrank(index, after))
        if rank is not None:
            return rank + 1
        stamp = after[:STAMP_DIGITS]
        created = int(stamp, 16) / 1000 + 0.1 if re.fullmatch(r"[0-9a-f]{11}", stamp) else 0.0
        return int(self.redis.zcount(index, created, "+inf"))

    def live_count(self) -> int:
        """Number of jobs that are queued or running."""
        return int(self.redis.scard(LIVE))

    def shards(self, job: str) -> dict[int, Shard]:
        """Read all shards of a job by index."""
        return by_index(cast("dict[str, str]", self.redis.hgetall(parts_key(job))), Shard)

    def shard(self, job: str, index: int) -> Shard | None:
        """Read one shard, or None when there is none."""
        text = cast("str | None", self.redis.hget(parts_key(job), str(index)))
        return Shard.model_validate_json(text) if text else None

    def reports(self, job: str) -> dict[int, ShardReport]:
        """Read the reports of a job's finished shards by index."""
        return by_index(cast("dict[str, str]", self.redis.hgetall(reports_key(job))), ShardReport)

    def cases(self, job: str) -> dict[int, PlannedCase]:
        """Read all cases of a benchmark by index."""
        return by_index(cast("dict[str, str]", self.redis.hgetall(parts_key(job))), PlannedCase)

    def case(self, job: str, index: int) -> PlannedCase | None:
        """Read one case, or None when there is none."""
        text = cast("str | None", self.redis.hget(parts_key(job), str(index)))
        return PlannedCase.model_validate_json(text) if text else None

    def case_reports(self, job: str) -> dict[int, CaseReport]:
        """Read the reports of a benchmark's finished cases by index."""
        return by_index(cast("dict[str, str]", self.redis.hgetall(reports_key(job))), CaseReport)

    def take(self, job: str, shard: int, *, lease_s: float, attempts: int) -> Lease | str:
        """Take a shard's lease, counting an attempt.

        Returns:
            The lease, or why there is none: `closed`, `done`, `held` or `exhausted`.
        """
        message = f"its worker died or ran out of memory or time {attempts} times; try smaller shards or another solver"
        last = ShardReport(error=TensorError(code="attempts_exhausted", message=message))
        token, *words = self._scripts.run("take", job, shard, int(lease_s * 1000), attempts, last.model_dump_json())
        if not token:
            return str(words[0])
        return Lease(job=job, shard=shard, token=token, attempt=int(words[0]), elapsed_s=float(words[1]))

    def renew(self, lease: Lease, lease_s: float) -> bool:
        """Keep a lease alive; False when it was lost or the job ended."""
        return bool(self._scripts.run("renew", lease.job, lease.shard, lease.token, int(lease_s * 1000)))

    def release(self, lease: Lease, *, uncount: bool = False) -> None:
        """Give a lease back; if its shard is still pending, the sweeper enqueues it again.

        Args:
            lease: The lease.
            uncount: Forget the attempt, because nothing was wrong with the shard.
        """
        self._scripts.run("release", lease.job, lease.shard, lease.token, int(uncount))

    def add_event(self, lease: Lease, kind: str, data: dict[str, Any]) -> bool:
        """Add an event to a job whose shard is being worked on; False when the lease had been lost."""
        return bool(self._scripts.run("add_event", lease.job, lease.shard, lease.token, kind, json.dumps(data)))

    def complete(self, lease: Lease, report: ShardReport | CaseReport, took_s: float = 0.0) -> bool:
        """Complete a shard, ending the job with its last one; False when the lease had been lost.

        Args:
            lease: The lease.
            report: The shard's report.
            took_s: Seconds that it was worked on, for the counts.
        """
        fence, failed = (lease.job, lease.shard, lease.token), int(report.error is not None)
        counts = json.dumps(_counts_of(report, took_s))
        return bool(self._scripts.run("complete", *fence, report.model_dump_json(), failed, counts))

    def cancel(self, job: str) -> bool:
        """Cancel a job; canceling a finished one changes nothing.

        Returns:
            Whether the job exists.
        """
        return int(cast("int", self._scripts.run("cancel", job))) >= 0

    def delete(self, job: str) -> bool:
        """Delete a job's record; a live job is canceled first. Returns whether it existed."""
        self.cancel(job)
        return bool(self._scripts.run("delete", job))

    def stranded(
        self, patience_s: float, *, overtaken: bool = False, queue: str = CPU_QUEUE
    ) -> Iterator[tuple[str, int]]:
        """List the pending shards that no worker holds and no message will bring back.

        Args:
            patience_s: Seconds after which a shard that was enqueued but not taken counts as lost.
            overtaken: Count them not until now, but until the latest shard that was taken had been enqueued.
            queue: Of whose jobs.
        """
        for job in sorted(cast("set[str]", self.redis.smembers(LIVE))):
            args: list[str | float] = [job, patience_s, int(overtaken), STRANDED_AT_ONCE, queue]
            for shard in cast("list[str]", self._scripts.run("stranded", *args)):
                yield job, int(shard)

    def move(self, queue: str, other: str) -> list[str]:
        """Let other workers do the live jobs of a queue, from the sweep on; gives their ids."""
        live = sorted(cast("set[str]", self.redis.smembers(LIVE)))
        moved = [job for job in live if self.redis.hget(job_key(job), "queue") == queue]
        for job in moved:
            self.redis.hset(job_key(job), "queue", other)
        return moved

    def claim_sweep(self, period_s: float, what: str = "") -> bool:
        """Whether this process may sweep now, shards or what else is named; at most one does per period."""
        return bool(self._scripts.run("claim_sweep", int(period_s * 1000), f":{what}" if what else ""))

    def now(self) -> float:
        """The server's time, which all records bear."""
        seconds, microseconds = self.redis.time()
        return seconds + microseconds / 1e6

    def counts(self) -> dict[str, str]:
        """Read all counts, by field."""
        return cast("dict[str, str]", self.redis.hgetall(counters.COUNTS))

    def queue_length(self, queue: str) -> int:
        """Messages waiting in a broker queue."""
        return int(self.redis.llen(queue))


def _counts_of(report: ShardReport | CaseReport, took_s: float) -> dict[str, float]:
    """Give what a part adds to the counts: searches are counted by shard, benchmarks by job alone."""
    if isinstance(report, CaseReport):
        return {}
    outcome = "failed" if report.error is not None else "remembered" if report.remembered else "solved"
    gap = report.gap if math.isfinite(report.objective) and math.isfinite(report.upper_bound) else None
    return counters.of_shard(report.device, outcome, took_s, gap)
