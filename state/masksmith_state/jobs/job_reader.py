"""Reads from Redis the record of a job, its shards or cases, and their reports."""

from __future__ import annotations

from typing import cast

import redis

from masksmith_wire.benchmarks import CaseReport, PlannedCase
from masksmith_wire.documents import JobState

from .model import JobRecord, parse_by_index, parse_record
from .redis_keys import job_key, parts_key, reports_key
from .reports import ShardReport
from .shards import Shard
from .unreadable_records import as_unreadable_record_errors


class JobReader:
    """Reads the records of jobs, and of their shards or cases, and the reports of those.

    Args:
        client: Redis client, with `decode_responses`.
    """

    def __init__(self, client: redis.Redis) -> None:
        self.redis = client

    def read(self, job: str) -> JobRecord | None:
        """Read a job's record; None if there is no such job."""
        with as_unreadable_record_errors(job):
            fields = cast("dict[str, str]", self.redis.hgetall(job_key(job)))
            return parse_record(job, fields) if fields else None

    def state(self, job: str) -> JobState | None:
        """Read a job's state; None if there is no such job."""
        with as_unreadable_record_errors(job):
            state = cast("str | None", self.redis.hget(job_key(job), "state"))
            return JobState(state) if state else None

    def owner(self, job: str) -> str | None:
        """Read the owner of a job, empty if it has none; None if there is no such job."""
        with as_unreadable_record_errors(job):
            state, owner = cast("list[str | None]", self.redis.hmget(job_key(job), ["state", "owner"]))
        return None if state is None else owner or ""

    def shards(self, job: str) -> dict[int, Shard]:
        """Read all shards of a job by index."""
        with as_unreadable_record_errors(job):
            return parse_by_index(cast("dict[str, str]", self.redis.hgetall(parts_key(job))), Shard)

    def shard(self, job: str, index: int) -> Shard | None:
        """Read one shard; None if there is no such shard."""
        with as_unreadable_record_errors(job):
            text = cast("str | None", self.redis.hget(parts_key(job), str(index)))
            return Shard.model_validate_json(text) if text else None

    def reports(self, job: str) -> dict[int, ShardReport]:
        """Read the reports of a job's finished shards by index."""
        with as_unreadable_record_errors(job):
            return parse_by_index(cast("dict[str, str]", self.redis.hgetall(reports_key(job))), ShardReport)

    def report(self, job: str, index: int) -> ShardReport | None:
        """Read the report of one shard; None if it is not finished."""
        with as_unreadable_record_errors(job):
            text = cast("str | None", self.redis.hget(reports_key(job), str(index)))
            return ShardReport.model_validate_json(text) if text else None

    def is_leased(self, job: str, index: int) -> bool:
        """Whether a worker holds the lease of a shard."""
        return bool(self.redis.exists(f"{job_key(job)}:lease:{index}"))

    def cases(self, job: str) -> dict[int, PlannedCase]:
        """Read all cases of a benchmark by index."""
        with as_unreadable_record_errors(job):
            return parse_by_index(cast("dict[str, str]", self.redis.hgetall(parts_key(job))), PlannedCase)

    def case(self, job: str, index: int) -> PlannedCase | None:
        """Read one case; None if there is no such case."""
        with as_unreadable_record_errors(job):
            text = cast("str | None", self.redis.hget(parts_key(job), str(index)))
            return PlannedCase.model_validate_json(text) if text else None

    def case_reports(self, job: str) -> dict[int, CaseReport]:
        """Read the reports of a benchmark's finished cases by index."""
        with as_unreadable_record_errors(job):
            return parse_by_index(cast("dict[str, str]", self.redis.hgetall(reports_key(job))), CaseReport)
