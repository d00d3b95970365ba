"""Reads and changes job records in Redis; every change is one of the atomic scripts in `lua`."""

from __future__ import annotations

import json
import math
import re
import secrets
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, cast

import redis

from masksmith_state.errors import FullError, MissingUploadError, UnreadableRecordError
from masksmith_state.queue import CPU_QUEUE
from masksmith_state.scripts import Scripts
from masksmith_state.start_progress import StartProgress
from masksmith_state.telemetry import counters
from masksmith_state.worker_registry import WorkerRegistry, served_key
from masksmith_wire.benchmarks import BenchmarkPlan, BenchWorker, CaseReport, PlannedCase
from masksmith_wire.digests import digest_bytes
from masksmith_wire.documents import JobState, WorkerInfo
from masksmith_wire.names import JobDescription

from .model import Admission, JobRecord, Lease, parse_by_index, parse_record, read_labels
from .plans import MasksPlan
from .redis_keys import IDS, JOBS, LIVE, job_key, parts_key, reports_key
from .reports import ShardReport
from .schedule import Schedule
from .shards import Shard
from .unreadable_records import reading, set_aside_job

TIMESTAMP_DIGITS = 11
ID_LENGTH = TIMESTAMP_DIGITS + 16
"""Hex digits of a job's id: the time of its creation in milliseconds, then random ones."""
JOB_BYTES, PART_BYTES = 4096, 2048
"""Bytes of the broker that a job is counted as, with indexes and events, and each part, with its message."""


class JobRecords:
    """Reads and changes job records; every change is one atomic script.

    Args:
        url: URL of the Redis server, `redis://` or `unix://`.
    """

    def __init__(self, url: str) -> None:
        self.redis = redis.Redis.from_url(
            url, decode_responses=True, socket_connect_timeout=3, socket_timeout=10, health_check_interval=10
        )
        self.workers = WorkerRegistry(self.redis, "masksmith:workers", WorkerInfo)
        self.bench_workers = WorkerRegistry(self.redis, "masksmith:bench-workers", BenchWorker)
        self.start_progress = StartProgress(self.redis)
        self._scripts = Scripts(self.redis, __package__)
        self.schedule = Schedule(self.redis, self._scripts)

    def create(
        self,
        plan: MasksPlan | BenchmarkPlan,
        shards: Sequence[Shard] | Sequence[PlannedCase],
        idempotency_key: str = "",
        fingerprint: str = "",
        admission: Admission | None = None,
        queue: str = CPU_QUEUE,
        description: JobDescription | None = None,
    ) -> tuple[str, bool] | None:
        """Create a job with all its shards pending.

        Args:
            plan: The job's plan.
            shards: Its shards or cases.
            idempotency_key: For a day, the same key of the same owner returns the same job, even if a limit is reached.
            fingerprint: Digest of the request, which must be equal for the same idempotency key.
            admission: Owner and limits; by default no owner and no limits.
            queue: Queue that the shards belong to.
            description: Name and labels.

        Returns:
            The job's id and whether it is new, or None if the idempotency key was used with another request.

        Raises:
            FullError: If a limit of live jobs or stored bytes is reached.
            MissingUploadError: If an upload does not exist.
        """
        admission, description = admission or Admission(), description or JobDescription()
        job = f"{int(datetime.now(UTC).timestamp() * 1000):0{TIMESTAMP_DIGITS}x}{secrets.token_hex(8)}"
        fields = {
            "kind": "masks" if isinstance(plan, MasksPlan) else "benchmark",
            "plan": plan.model_dump_json(),
            "queue": queue,
            "name": description.name or "",
            "labels": json.dumps(description.labels or {}),
            "priority": admission.priority,
            **plan.summary_fields,
        }
        texts = [shard.model_dump_json() for shard in shards]
        limits = {
            "full": admission.max_live_jobs,
            "quota": admission.max_live_jobs_of_owner,
            "bytes": admission.max_bytes_of_owner,
            "records": admission.max_record_bytes_of_owner,
        }
        args: list[str | int] = [
            job,
            json.dumps(fields),
            json.dumps(texts),
            _digest_of_key(idempotency_key),
            fingerprint,
            admission.owner,
            *(-1 if limit is None else limit for limit in limits.values()),
            json.dumps(plan.uploads),
            admission.uploaders or "",
            plan.result_bytes,
            record_bytes(fields, texts),
            json.dumps([index for index, shard in enumerate(shards) if isinstance(shard, Shard) and shard.is_long]),
        ]
        outcome = str(self._scripts.run("create", *args))
        if outcome in limits:
            raise FullError(outcome, limits[outcome] or 0)
        if outcome.startswith("missing:"):
            raise MissingUploadError(outcome.removeprefix("missing:"))
        return None if outcome == "conflict" else (outcome, outcome == job)

    def read(self, job: str) -> JobRecord | None:
        """Read a job's record; None if there is no such job."""
        with reading(job):
            fields = cast("dict[str, str]", self.redis.hgetall(job_key(job)))
            return parse_record(job, fields) if fields else None

    def state(self, job: str) -> JobState | None:
        """Read a job's state; None if there is no such job."""
        with reading(job):
            state = cast("str | None", self.redis.hget(job_key(job), "state"))
            return JobState(state) if state else None

    def owner(self, job: str) -> str | None:
        """Read the owner of a job; None if there is no such job."""
        with reading(job):
            state, owner = cast("list[str | None]", self.redis.hmget(job_key(job), ["state", "owner"]))
        return None if state is None else owner or ""

    def has_jobs(self, owner: str) -> bool:
        """Whether jobs of an owner are kept."""
        return bool(self.redis.exists(f"masksmith:owner:{owner}:jobs"))

    def find_ids(self, prefix: str, owner: str | None, limit: int) -> list[str]:
        """Find up to `limit` ids of jobs that begin with a prefix, in order; optionally of one owner."""
        index = IDS if owner is None else f"masksmith:owner:{owner}:ids"
        return cast("list[str]", self.redis.zrangebylex(index, f"[{prefix}", f"[{prefix}g", start=0, num=limit))

    def summaries(
        self, after: str | None, limit: int, owner: str | None = None, until: datetime | None = None
    ) -> list[dict[str, Any]]:
        """Read the list entries of up to `limit` jobs older than job `after`, newest first.

        Args:
            after: Id of a job; None begins with the newest job.
            limit: Maximum number of entries.
            owner: Only jobs of this owner.
            until: Only jobs that were created until then.
        """
        index = JOBS if owner is None else f"masksmith:owner:{owner}:jobs"
        start = 0 if after is None else self._rank_after(index, after)
        if until is not None:
            start = max(start, int(self.redis.zcount(index, f"({until.timestamp()}", "+inf")))
        ids = cast("list[str]", self.redis.zrevrange(index, start, start + limit - 1))
        names = ["owner", "name", "labels", "kind", "state", "pattern", "solver", "created_at", "finished_at"]
        names += ["done", "total"]
        try:
            rows = self._rows(ids, names)
        except UnicodeDecodeError:
            # One record cannot be read; the reply of a pipeline is read as a whole.
            rows = [row for job in ids for row in self._readable_row(job, names)]
        entries = [dict(zip(names, row, strict=True), id=job) for job, row in rows]
        return [entry | {"labels": read_labels(entry["labels"])} for entry in entries if entry["kind"] is not None]

    def _rows(self, ids: Sequence[str], names: Sequence[str]) -> list[tuple[str, list[str | None]]]:
        pipe = self.redis.pipeline(transaction=False)
        for job in ids:
            pipe.hmget(job_key(job), names)
        # The reply for a key of another type is an error.
        replies = pipe.execute(raise_on_error=False)
        return [(job, row) for job, row in zip(ids, replies, strict=True) if isinstance(row, list)]

    def _readable_row(self, job: str, names: Sequence[str]) -> list[tuple[str, list[str | None]]]:
        try:
            return self._rows([job], names)
        except UnicodeDecodeError:
            return []

    def _rank_after(self, index: str, after: str) -> int:
        """Rank of the first job older than `after`; if that was deleted, estimated from the timestamp in its id."""
        rank = cast("int | None", self.redis.zrevrank(index, after))
        if rank is not None:
            return rank + 1
        stamp = after[:TIMESTAMP_DIGITS]
        created = int(stamp, 16) / 1000 + 0.1 if re.fullmatch(r"[0-9a-f]{11}", stamp) else 0.0
        return int(self.redis.zcount(index, created, "+inf"))

    def live_count(self) -> int:
        """Number of live jobs: queued or running."""
        return int(self.redis.scard(LIVE))

    def shards(self, job: str) -> dict[int, Shard]:
        """Read all shards of a job by index."""
        with reading(job):
            return parse_by_index(cast("dict[str, str]", self.redis.hgetall(parts_key(job))), Shard)

    def shard(self, job: str, index: int) -> Shard | None:
        """Read one shard; None if there is no such shard."""
        with reading(job):
            text = cast("str | None", self.redis.hget(parts_key(job), str(index)))
            return Shard.model_validate_json(text) if text else None

    def reports(self, job: str) -> dict[int, ShardReport]:
        """Read the reports of a job's finished shards by index."""
        with reading(job):
            return parse_by_index(cast("dict[str, str]", self.redis.hgetall(reports_key(job))), ShardReport)

    def report(self, job: str, index: int) -> ShardReport | None:
        """Read the report of one shard; None if it is not finished."""
        with reading(job):
            text = cast("str | None", self.redis.hget(reports_key(job), str(index)))
            return ShardReport.model_validate_json(text) if text else None

    def is_leased(self, job: str, index: int) -> bool:
        """Whether a living worker has taken a shard."""
        return bool(self.redis.exists(f"{job_key(job)}:lease:{index}"))

    def cases(self, job: str) -> dict[int, PlannedCase]:
        """Read all cases of a benchmark by index."""
        with reading(job):
            return parse_by_index(cast("dict[str, str]", self.redis.hgetall(parts_key(job))), PlannedCase)

    def case(self, job: str, index: int) -> PlannedCase | None:
        """Read one case; None if there is no such case."""
        with reading(job):
            text = cast("str | None", self.redis.hget(parts_key(job), str(index)))
            return PlannedCase.model_validate_json(text) if text else None

    def case_reports(self, job: str) -> dict[int, CaseReport]:
        """Read the reports of a benchmark's finished cases by index."""
        with reading(job):
            return parse_by_index(cast("dict[str, str]", self.redis.hgetall(reports_key(job))), CaseReport)

    def renew(self, lease: Lease, lease_s: float) -> bool:
        """Renew a lease; False if the lease was lost or the job has ended."""
        return bool(self._run("renew", lease.job, lease.shard, lease.token, int(lease_s * 1000)))

    def release(self, lease: Lease, *, forget_attempt: bool = False) -> None:
        """Release a lease; the sweeper queues its shard again.

        Args:
            lease: The lease.
            forget_attempt: Do not count the attempt, because the shard did not fail.
        """
        self._run("release", lease.job, lease.shard, lease.token, int(forget_attempt))

    def add_event(self, lease: Lease, kind: str, data: dict[str, Any]) -> bool:
        """Add an event to the job of a leased shard; False if the lease was lost."""
        return bool(self._run("add_event", lease.job, lease.shard, lease.token, kind, json.dumps(data)))

    def complete(self, lease: Lease, report: ShardReport | CaseReport, took_s: float = 0.0) -> bool:
        """Complete a shard, and end the job with its last shard; False if the lease was lost.

        Args:
            lease: The lease.
            report: The shard's report.
            took_s: Seconds spent on the shard, for the metrics.
        """
        fence, failed = (lease.shard, lease.token), int(report.error is not None)
        counts = json.dumps(_increments(report, took_s))
        return bool(self._run("complete", lease.job, *fence, report.model_dump_json(), failed, counts))

    def cancel(self, job: str) -> bool:
        """Cancel a job; canceling a finished job changes nothing.

        Returns:
            Whether the job exists.
        """
        return int(cast("int", self._run("cancel", job))) >= 0

    def delete(self, job: str) -> bool:
        """Delete a job's record, after canceling the job if it is live. Returns whether it existed.

        A record that cannot be read is set aside.
        """
        try:
            self.cancel(job)
            return bool(self._run("delete", job))
        except UnreadableRecordError as error:
            self.set_aside(error)
            return True

    def set_aside(self, error: UnreadableRecordError) -> None:
        """Set a record aside that cannot be read; the job does not exist any more."""
        set_aside_job(self.redis, error.job, error.reason)

    def _run(self, script: str, job: str, *args: str | float) -> Any:
        """Run a script on a job's record.

        Raises:
            UnreadableRecordError: If the script meets values of another type or form.
        """
        with reading(job):
            return self._scripts.run(script, job, *args)

    def is_served(self, queue: str) -> bool:
        """Whether a living worker consumes a queue."""
        return bool(self.redis.exists(served_key(queue)))

    def claim_sweep(self, period_s: float, what: str = "") -> bool:
        """Claim the sweep of shards, or of `what`; True for one process per period."""
        return bool(self._scripts.run("claim_sweep", int(period_s * 1000), f":{what}" if what else ""))

    def now(self) -> float:
        """Time of the Redis server, which all timestamps in records are based on."""
        seconds, microseconds = self.redis.time()
        return seconds + microseconds / 1e6

    def counts(self) -> dict[str, str]:
        """Read all counters, by field."""
        return cast("dict[str, str]", self.redis.hgetall(counters.COUNTS))


def record_bytes(fields: Mapping[str, str], texts: Sequence[str]) -> int:
    """Bytes of the broker that a job is counted as, from its fields and its parts."""
    texts_bytes = sum(map(len, texts)) + sum(map(len, fields.values()))
    return JOB_BYTES + len(texts) * PART_BYTES + texts_bytes


def _digest_of_key(idempotency_key: str) -> str:
    """Digest of an idempotency key, which a client may choose freely; empty if there is none."""
    return digest_bytes(idempotency_key.encode()) if idempotency_key else ""


def _increments(report: ShardReport | CaseReport, took_s: float) -> dict[str, float]:
    """Counter increments of a finished shard; benchmark cases and written files are not counted."""
    if isinstance(report, CaseReport) or (report.result is None and report.error is None):
        return {}
    outcome = "failed" if report.error is not None else "remembered" if report.remembered else "solved"
    gap = report.gap if math.isfinite(report.objective) and math.isfinite(report.upper_bound) else None
    return counters.shard_increments(report.device, outcome, took_s, gap)
