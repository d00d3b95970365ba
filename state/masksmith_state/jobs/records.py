"""Creates, changes and deletes job records in Redis, by the atomic scripts in `lua`."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import redis

from masksmith_state.decoding import DECODING
from masksmith_state.errors import FullError, MissingResultError, MissingUploadError, UnreadableRecordError
from masksmith_state.queue import CPU_QUEUE
from masksmith_state.scripts import Scripts
from masksmith_state.start_progress import StartProgress
from masksmith_state.telemetry import counters
from masksmith_state.worker_registry import WorkerRegistry, served_key
from masksmith_wire.benchmarks import BenchmarkPlan, BenchWorker, CaseReport, PlannedCase
from masksmith_wire.digests import digest_bytes
from masksmith_wire.documents import WorkerInfo
from masksmith_wire.names import JobDescription

from .job_index import JobIndex
from .job_reader import JobReader
from .model import Admission, Lease
from .plans import MasksPlan
from .redis_keys import idempotency_redis_key, job_key, new_job_id
from .reports import ShardReport
from .schedule import Schedule
from .shards import Shard
from .unreadable_records import as_unreadable_record_errors, set_aside_job

JOB_BYTES, PART_BYTES = 4096, 2048
"""Estimated bytes in the broker of a job with its indexes and events, and of each shard or case with its message."""


class JobRecords(JobReader, JobIndex):
    """Reads and changes job records.

    Each method that changes a record runs one atomic script, except `delete` and `set_aside`.

    Args:
        url: URL of the Redis server, `redis://` or `unix://`.
    """

    def __init__(self, url: str) -> None:
        super().__init__(
            redis.Redis.from_url(url, **DECODING, socket_connect_timeout=3, socket_timeout=10, health_check_interval=10)
        )
        self.workers = WorkerRegistry(self.redis, "masksmith:workers", WorkerInfo)
        self.bench_workers = WorkerRegistry(self.redis, "masksmith:bench-workers", BenchWorker)
        self.start_progress = StartProgress(self.redis)
        self._scripts = Scripts(self.redis, __package__)
        self.schedule = Schedule(self.redis, self._scripts)

    def find_repeated(self, owner: str, idempotency_key: str) -> tuple[str, str] | None:
        """Find the job that `create` would return for an idempotency key of an owner.

        Returns:
            The job's id and the fingerprint of its request; None if the key was not used, or the job was deleted.
        """
        key = idempotency_redis_key(owner, _digest_of_key(idempotency_key))
        job, fingerprint = cast("list[str | None]", self.redis.hmget(key, ["id", "fingerprint"]))
        if job is None or fingerprint is None or not self.redis.exists(job_key(job)):
            return None
        return job, fingerprint

    def create(
        self,
        plan: MasksPlan | BenchmarkPlan,
        shards: Sequence[Shard] | Sequence[PlannedCase],
        idempotency_key: str = "",
        fingerprint: str = "",
        admission: Admission | None = None,
        queue: str = CPU_QUEUE,
        description: JobDescription | None = None,
        require_room: Callable[[int], None] | None = None,
    ) -> tuple[str, bool] | None:
        """Create a job, with all its shards queued.

        Args:
            plan: The job's plan.
            shards: Its shards or cases.
            idempotency_key: For a day, while the job exists, the same key of the same owner returns this job, even if
                a limit is reached; empty for none.
            fingerprint: Digest of the request, which must be equal for the same idempotency key.
            admission: Owner and limits; by default no owner and no limits.
            queue: Queue that the shards belong to.
            description: Name and labels.
            require_room: Called with the estimated bytes of the record before it is created; may raise.

        Returns:
            The job's id and whether it is new, or None if the idempotency key was used with another request.

        Raises:
            FullError: If a limit of `admission` is reached.
            MissingUploadError: If an upload was not sent: with `admission.uploaders` `owner`, by the owner; with
                `anybody`, by any key. Not checked without `admission.uploaders`.
            MissingResultError: If a result of an earlier job that this job reads was deleted; not checked without
                `admission.uploaders`.
        """
        admission, description = admission or Admission(), description or JobDescription()
        job, texts = new_job_id(), [shard.model_dump_json() for shard in shards]
        fields = {
            "kind": "masks" if isinstance(plan, MasksPlan) else "benchmark",
            "plan": plan.model_dump_json(),
            "queue": queue,
            "name": description.name or "",
            "labels": json.dumps(description.labels or {}),
            "priority": admission.priority,
            **plan.summary_fields,
        }
        limits, size = _limits(admission), record_bytes(fields, texts)
        if require_room is not None:
            require_room(size)
        outcome = str(
            self._scripts.run(
                "create",
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
                size,
                json.dumps([index for index, shard in enumerate(shards) if isinstance(shard, Shard) and shard.is_long]),
                json.dumps(plan.earlier_results),
            )
        )
        if outcome in limits:
            raise FullError(outcome, cast("int", limits[outcome]))
        if outcome.startswith("missing:"):
            raise MissingUploadError(outcome.removeprefix("missing:"))
        if outcome == "result_missing":
            raise MissingResultError
        return None if outcome == "conflict" else (outcome, outcome == job)

    def renew(self, lease: Lease, lease_s: float) -> bool:
        """Renew a lease; False if the lease was lost or the job has ended."""
        return bool(self._run("renew", lease.job, lease.shard, lease.token, int(lease_s * 1000)))

    def release(self, lease: Lease, *, forget_attempt: bool = False) -> None:
        """Release a lease; the sweeper queues its shard again, if the job has not ended.

        Args:
            lease: The lease.
            forget_attempt: Do not count the attempt, because the shard did not fail.
        """
        self._run("release", lease.job, lease.shard, lease.token, int(forget_attempt))

    def add_event(self, lease: Lease, kind: str, data: dict[str, Any]) -> bool:
        """Add an event to the job of a leased shard; False if the lease was lost or the job has ended."""
        return bool(self._run("add_event", lease.job, lease.shard, lease.token, kind, json.dumps(data)))

    def complete(self, lease: Lease, report: ShardReport | CaseReport, took_s: float = 0.0) -> bool:
        """Complete a shard, and end the job with its last shard; False if the lease was lost or the job has ended.

        Args:
            lease: The lease.
            report: The shard's report.
            took_s: Seconds spent on the shard, for the metrics.
        """
        fence, failed = (lease.shard, lease.token), int(report.error is not None)
        increments = json.dumps(_increments(report, took_s))
        return bool(self._run("complete", lease.job, *fence, report.model_dump_json(), failed, increments))

    def cancel(self, job: str) -> bool:
        """Cancel a job; canceling a finished job changes nothing.

        Returns:
            Whether the job exists.
        """
        return int(cast("int", self._run("cancel", job))) >= 0

    def delete(self, job: str) -> bool:
        """Delete a job's record, after canceling the job if it is live. Returns whether the record existed.

        A record that cannot be read, or is lost although the job is listed, is set aside; this counts as existing.
        """
        try:
            self.cancel(job)
            return bool(self._run("delete", job))
        except UnreadableRecordError as error:
            self.set_aside(error)
            return True

    def set_aside(self, error: UnreadableRecordError) -> None:
        """Set aside a record that cannot be read; after that, the job does not exist."""
        set_aside_job(self.redis, error.job, error.reason)

    def _run(self, script: str, job: str, *args: str | float) -> Any:
        """Run a script on a job's record.

        Raises:
            UnreadableRecordError: If the record has values of another type or form.
        """
        with as_unreadable_record_errors(job):
            return self._scripts.run(script, job, *args)

    def is_served(self, queue: str) -> bool:
        """Whether a living worker consumes a queue."""
        return bool(self.redis.exists(served_key(queue)))

    def claim_sweep(self, period_s: float, what: str = "") -> bool:
        """Claim the sweep of shards, or of `what`; True for the first caller in each period."""
        return bool(self._scripts.run("claim_sweep", int(period_s * 1000), f":{what}" if what else ""))

    def now(self) -> float:
        """Time by the clock of the Redis server; all timestamps in records are by this clock."""
        seconds, microseconds = self.redis.time()
        return seconds + microseconds / 1e6

    def counts(self) -> dict[str, str]:
        """Read the counters of all services and workers, by field."""
        return cast("dict[str, str]", self.redis.hgetall(counters.COUNTS))


def _limits(admission: Admission) -> dict[str, int | None]:
    """Return the limits of a new job, in the order in which the script `create` takes them.

    The keys are the replies of the script when a limit is reached.
    """
    return {
        "full": admission.max_live_jobs,
        "quota": admission.max_live_jobs_of_owner,
        "bytes": admission.max_bytes_of_owner,
        "records": admission.max_record_bytes_of_owner,
    }


def record_bytes(fields: Mapping[str, str], texts: Sequence[str]) -> int:
    """Estimate a job's bytes in the broker, from its fields and from the texts of its shards or cases."""
    # A name may have a lone surrogate, which `encode` accepts only with this error handler.
    text_bytes = sum(len(text.encode("utf-8", "surrogatepass")) for text in (*texts, *fields.values()))
    return JOB_BYTES + len(texts) * PART_BYTES + text_bytes


def _digest_of_key(idempotency_key: str) -> str:
    """Digest of an idempotency key, which a client may choose freely; empty for an empty key."""
    return digest_bytes(idempotency_key.encode()) if idempotency_key else ""


def _increments(report: ShardReport | CaseReport, took_s: float) -> dict[str, float]:
    """Counter increments of a finished shard; none for a benchmark case.

    For a shard that writes a file of an output, `complete.lua` ignores them.
    """
    if isinstance(report, CaseReport):
        return {}
    outcome = "failed" if report.error is not None else "remembered" if report.remembered else "solved"
    gap = report.gap if math.isfinite(report.objective) and math.isfinite(report.upper_bound) else None
    return counters.shard_increments(report.device, outcome, took_s, gap)
