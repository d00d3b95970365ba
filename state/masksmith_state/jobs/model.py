"""What is kept about a job: its plan, the leases and reports of its parts, and the keys that they lie under."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict

from masksmith_state.errors import NoMasksError
from masksmith_wire.benchmarks import BenchmarkPlan, CaseReport, PlannedCase
from masksmith_wire.digests import is_digest
from masksmith_wire.documents import DiversityReport, JobState, MasksOptions, Skipped, SpectrumReport, UpdateReport
from masksmith_wire.errors import TensorError
from masksmith_wire.masks import packed_bytes
from masksmith_wire.totals import relative_gap

from .shards import PlannedTensor, Shard


class Plan(BaseModel):
    """The plan of a masks job: options, located tensors, and what was left out."""

    options: MasksOptions
    tensors: list[PlannedTensor]
    skipped: list[Skipped] = []

    @property
    def headline(self) -> dict[str, str]:
        """What lists of jobs show of it."""
        return {"pattern": self.options.pattern, "solver": self.options.solver}

    @property
    def uploads(self) -> list[str]:
        """Digests of all uploads that the job reads."""
        inputs = [
            part for tensor in self.tensors for part in (tensor, tensor.statistic, tensor.gram) if part is not None
        ]
        previous = self.options.previous or ""
        return sorted({part.digest for part in inputs} | ({previous} if is_digest(previous) else set()))

    @property
    def result_bytes(self) -> int:
        """Size of all packed masks, and of the weights that are updated."""
        masks = sum(packed_bytes(tuple(tensor.shape)) for tensor in self.tensors)
        weights = sum(tensor.shape[0] * tensor.row_bytes for tensor in self.tensors)
        return masks if self.options.update is None else masks + weights


class ShardReport(BaseModel):
    """What a worker says of a finished shard; sums are over the shard's entries, in float64.

    `kept_score` is the sum of the scores kept; it differs from `objective` where a pattern maximises something else
    (blocks by another norm than l1), and is None in results of older workers, where it does not. `pattern` is what a
    budget gave the tensor, `budget_gap` what the sharing out may have lost. `remembered` says that the result was there
    already. `blocks` counts blocks of 16x16 with any kept entry, where the shard's rows are whole ones; `added` and
    `dropped` count against the previous mask. Only a tensor's first shard has the diversity.
    """

    model_config = ConfigDict(ser_json_inf_nan="constants")

    result: str | None = None
    pattern: str | None = None
    budget_gap: float | None = None
    status: str | None = None
    objective: float = 0.0
    upper_bound: float = 0.0
    total_score: float = 0.0
    kept_score: float | None = None
    kept: int = 0
    entries: int = 0
    blocks: int | None = None
    two_four: bool = False
    diversity: DiversityReport | None = None
    spectrum: SpectrumReport | None = None
    added: int | None = None
    dropped: int | None = None
    solve_s: float = 0.0
    solver: str = ""
    device: str = ""
    update: UpdateReport | None = None
    error: TensorError | None = None
    remembered: bool = False

    @property
    def gap(self) -> float:
        """Share of the bound that the mask misses."""
        return relative_gap(self.objective, self.upper_bound)


class Lease(BaseModel):
    """The right to finish a shard; lapses unless renewed, and its token fences off earlier holders.

    `elapsed_s` is the time since the job's first shard was taken.
    """

    job: str
    shard: int
    token: str
    attempt: int
    elapsed_s: float = 0.0


class Admission(BaseModel):
    """On what terms a job is let in.

    Attributes:
        owner: Key that the job belongs to.
        senders: Who must have sent its uploads: the owner, any key, or None where that is not recorded.
        most: Live jobs that there may be.
        most_of_owner: Live jobs that the owner may have.
        most_bytes: Bytes of uploads and results that the owner may keep.
    """

    owner: str = ""
    senders: Literal["owner", "anybody"] | None = None
    most: int | None = None
    most_of_owner: int | None = None
    most_bytes: int | None = None


class JobRecord(BaseModel):
    """Everything the service keeps about a job; `owner` is the key that made it, if any was needed."""

    id: str
    owner: str = ""
    kind: str
    state: JobState
    masks: Plan | None = None
    benchmark: BenchmarkPlan | None = None
    created_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None
    done: int
    total: int

    @property
    def plan(self) -> Plan:
        """What a masks job is to do.

        Raises:
            NoMasksError: If it is a job of another kind.
        """
        if self.masks is None:
            raise NoMasksError(self.id, self.kind)
        return self.masks


Part = TypeVar("Part", Shard, ShardReport, PlannedCase, CaseReport)


def record_of(job: str, fields: Mapping[str, Any]) -> JobRecord:
    """Make a job's record of the fields that Redis holds."""
    model = Plan if fields["kind"] == "masks" else BenchmarkPlan
    return JobRecord(id=job, **{**fields, fields["kind"]: model.model_validate_json(fields["plan"])})


def by_index(texts: Mapping[str, str], kind: type[Part]) -> dict[int, Part]:
    """Read the parts of a job, or their reports, by index."""
    ordered = sorted((int(index), text) for index, text in texts.items())
    return {index: kind.model_validate_json(text) for index, text in ordered}


def job_key(job: str) -> str:
    """Name of the hash that holds a job."""
    return f"masksmith:job:{job}"


def parts_key(job: str) -> str:
    """Name of the hash that holds a job's shards or cases."""
    return job_key(job) + ":shards"


def reports_key(job: str) -> str:
    """Name of the hash that holds their reports."""
    return job_key(job) + ":reports"


def events_key(job: str) -> str:
    """Name of the stream that a job's events go to."""
    return job_key(job) + ":events"
