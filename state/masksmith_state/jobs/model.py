"""Data model of jobs: records, leases and the limits that a new job must keep."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypeVar, cast

from pydantic import BaseModel

from masksmith_state.errors import NoMasksError
from masksmith_wire.benchmarks import BenchmarkPlan, CaseReport, PlannedCase
from masksmith_wire.documents import JobState
from masksmith_wire.json_text import parse_json
from masksmith_wire.priorities import Priority
from masksmith_wire.values import Moment

from .plans import MasksPlan
from .reports import ShardReport
from .shards import Shard


class Lease(BaseModel):
    """The exclusive right to complete a shard, which lapses unless it is renewed.

    Attributes:
        job: Id of the job.
        shard: Index of the shard.
        token: Fencing token: writes with the token of an earlier lease are rejected.
        attempt: Number of the attempt, from 1.
        elapsed_s: Seconds from the taking of the job's first shard until this lease.
        is_long: Whether the shard takes long; see `Shard`.
        messages_wanted: Number of messages that the queue lacked when the shard was taken.
    """

    job: str
    shard: int
    token: str
    attempt: int
    elapsed_s: float = 0.0
    is_long: bool = False
    messages_wanted: int = 0


class Admission(BaseModel):
    """The owner of a new job, and the limits against which the job is checked. None means no limit.

    Attributes:
        owner: Id of the key that the job belongs to; empty if no key is required.
        priority: The job's priority among the jobs of the owner.
        uploaders: Who must have sent the job's uploads: the owner, or any key. None skips this check, and the check
            that the results of earlier jobs exist.
        max_live_jobs: Limit of live jobs of all owners.
        max_live_jobs_of_owner: Limit of live jobs of the owner.
        max_bytes_of_owner: Limit of the bytes of uploads and results that the owner keeps.
        max_record_bytes_of_owner: Limit of the bytes of the owner's records and messages in the broker.
    """

    owner: str = ""
    priority: Priority = Priority.NORMAL
    uploaders: Literal["owner", "anybody"] | None = None
    max_live_jobs: int | None = None
    max_live_jobs_of_owner: int | None = None
    max_bytes_of_owner: int | None = None
    max_record_bytes_of_owner: int | None = None


class JobRecord(BaseModel):
    """The record of a job.

    Attributes:
        owner: Id of the key that created the job; empty if no key was required.
        kind: `masks` or `benchmark`.
        masks: The plan of a masks job; None for a benchmark.
        benchmark: The plan of a benchmark; None for a masks job.
        done: Number of finished shards or cases.
        total: Number of all shards or cases.
    """

    id: str
    owner: str = ""
    priority: Priority = Priority.NORMAL
    name: str = ""
    labels: dict[str, str] = {}
    kind: str
    state: JobState
    masks: MasksPlan | None = None
    benchmark: BenchmarkPlan | None = None
    created_at: Moment
    started_at: Moment | None = None
    finished_at: Moment | None = None
    done: int
    total: int

    @property
    def plan(self) -> MasksPlan:
        """The plan of a masks job.

        Raises:
            NoMasksError: If the job is a benchmark.
        """
        if self.masks is None:
            raise NoMasksError(self.id, self.kind)
        return self.masks


PartOrReport = TypeVar("PartOrReport", Shard, ShardReport, PlannedCase, CaseReport)


def parse_record(job: str, fields: Mapping[str, Any]) -> JobRecord:
    """Parse a job's record from the fields of its Redis hash."""
    model = MasksPlan if fields["kind"] == "masks" else BenchmarkPlan
    members = {"labels": read_labels(fields.get("labels")), fields["kind"]: model.model_validate_json(fields["plan"])}
    return JobRecord(id=job, **{**fields, **members})


def read_labels(text: str | None) -> dict[str, str]:
    """Parse a job's labels from the field of its Redis hash."""
    return cast("dict[str, str]", parse_json(text)) if text else {}


def parse_by_index(texts: Mapping[str, str], model: type[PartOrReport]) -> dict[int, PartOrReport]:
    """Parse the shards or cases of a job, or their reports, ordered by index."""
    ordered = sorted((int(index), text) for index, text in texts.items())
    return {index: model.model_validate_json(text) for index, text in ordered}
