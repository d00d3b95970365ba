"""Job documents: what a client asks for and what the service answers."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, FailFast, Field

from masksmith.layouts import Layout

from .errors import TensorError
from .payload_limits import StrictModel
from .scores import ScoreMethod
from .updates import UpdateMethod

Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$", description="BLAKE3 of a safetensors file, in hex")]


def _no_metadata(name: str) -> str:
    if name == "__metadata__":
        raise ValueError("'__metadata__' names a safetensors file's metadata and can be no tensor's name")
    return name


TensorName = Annotated[str, Field(min_length=1, max_length=512), AfterValidator(_no_metadata)]
Scores = Annotated[ScoreMethod, Field(examples=["wanda", "ria power=0.7"], description="A method and its options.")]
Update = Annotated[
    UpdateMethod, Field(examples=["reconstruct", "admm penalty=0.1"], description="A method and its options.")
]
SolverName = Literal["auto", "exact", "min-cost-flow", "greedy", "sinkhorn", "enumerate", "top-k"]
SolveStatus = Literal["optimal", "feasible", "time_limit"]


class JobState(StrEnum):
    """`queued -> running -> succeeded | failed | canceled`."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELED = "canceled"

    @property
    def is_terminal(self) -> bool:
        """Whether the job will never change again."""
        return self in (JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELED)


class LayoutInput(StrictModel):
    """How a tensor is made of the matrices `[out, in]` that its layer multiplies with, and what decided that.

    `axes` has a word for each dimension: `out`, `in`, `stack` (which counts matrices, such as experts) or `kernel`.
    `out_parts` are the rows of matrices that are fused along `out` and split later.
    """

    axes: Annotated[str, Field(max_length=60, examples=["out in", "in out", "stack out in"])]
    out_parts: Annotated[list[Annotated[int, Field(gt=0)]], Field(max_length=4096), FailFast()] = []
    rule: Literal["user", "model", "architecture", "name", "shape"] = "user"

    @classmethod
    def of(cls, layout: Layout) -> LayoutInput:
        """Make the document of a layout."""
        return cls(axes=str(layout), out_parts=list(layout.out_parts), rule=layout.rule)

    def parse(self) -> Layout:
        """Read it.

        Raises:
            LayoutError: If the axes describe no stack of matrices.
        """
        return Layout.parse(self.axes, self.rule, self.out_parts)


class StatisticInput(StrictModel):
    """What a weight's scores are made from: the tensor `key` of an uploaded file, which holds its `kind`."""

    kind: Literal["activations", "gradient", "gradient_rms", "gram", "inverse_diagonal", "norms", "scores"]
    digest: Digest
    key: TensorName


class TensorInput(StrictModel):
    """One weight: `key` names it inside the uploaded file, `name` in the results."""

    name: TensorName
    digest: Digest
    key: TensorName
    statistic: StatisticInput | None = None
    gram: StatisticInput | None = None
    """What an update needs, unless the job's calibration holds it."""
    layout: LayoutInput | None = None
    """How it is made of matrices; names and shapes decide unless given."""


class MasksOptions(StrictModel):
    """How masks are to be found; the same for every tensor of a job."""

    pattern: Annotated[str, Field(max_length=100, examples=["transposable 8:16"])]
    axis: Literal["in", "out"] = "in"
    ragged: Literal["pad", "dense", "error"] = "pad"
    scores: Scores = Field("magnitude", validate_default=True)
    calibration: Digest | None = None
    """Upload that holds `NAME/norms` and so on (or scores under `NAME`), unless the tensors say where theirs are."""
    budget: Annotated[str, Field(max_length=60, examples=["50%"])] | None = None
    """Share kept of all tensors together, shared out over them to keep the most score."""
    floors: Annotated[
        list[Annotated[str, Field(max_length=600, examples=["*.query*=25%"])]], Field(max_length=1000), FailFast()
    ] = []
    """Least shares of the tensors whose names a glob meets."""
    update: Update | None = None
    """What becomes of the weights that a mask keeps; nothing, unless given."""
    previous: Annotated[str, Field(max_length=64, pattern=r"^[0-9a-f]+$")] | None = None
    """An earlier job, or the digest of an uploaded masks file: what changed against it is measured."""
    spectrum: bool = False
    """Whether to measure singular values of the masked weights."""
    solver: SolverName = "auto"
    time_limit_s: Annotated[float, Field(gt=0, le=86_400)] | None = None


class MasksRequest(MasksOptions):
    """The document that asks for masks."""

    kind: Literal["masks"] = "masks"
    tensors: Annotated[list[TensorInput], Field(min_length=1), FailFast()]


class Progress(BaseModel):
    """Shards finished and shards in all."""

    done: int
    total: int


class Skipped(BaseModel):
    """A tensor that was not masked because it is no weight for this pattern."""

    name: str
    reason: str


class UpdateReport(BaseModel):
    """What updated weights cost a layer's output on the calibration data: squared errors, see `ms.reconstruct`.

    `error` is never more than `masked_error`; `energy` is the output's own square. `solves` counts ADMM's masks.
    """

    error: float
    masked_error: float
    energy: float
    update_s: float
    solves: int | None = None


class DiversityReport(BaseModel):
    """How many masks a tile has; `count` is text, for it has many digits, or null where only its logarithm is known."""

    rows: int
    cols: int
    count: str | None
    log2_count: float
    bits_per_weight: float
    method: str
    log2_published: float | None


class ChangeReport(BaseModel):
    """What changed against the previous mask: `sad` counts the entries that differ."""

    sad: int
    added: int
    dropped: int
    flip_rate: float


class SpectrumReport(BaseModel):
    """Least, mean and largest singular value of the masked weight."""

    least: float
    mean: float
    most: float


class TensorReport(BaseModel):
    """What is known about one tensor's mask; numbers are null until all its shards are done."""

    name: str
    state: JobState
    shape: list[int]
    layout: LayoutInput | None = None
    """How it is made of matrices, and which rule decided that."""
    pattern: str | None = None
    """Its own pattern, where a budget gave each tensor one."""
    status: SolveStatus | None = None
    objective: float | None = None
    upper_bound: float | None = None
    gap: float | None = None
    retained: float | None = None
    density: float | None = None
    fill: float | None = None
    """Kept of what the pattern allows."""
    storage_bytes: dict[str, int | None] | None = None
    """Of the masked weight, by format; values in the weight's own dtype."""
    diversity: DiversityReport | None = None
    change: ChangeReport | None = None
    spectrum: SpectrumReport | None = None
    solve_s: float | None = None
    solver: str | None = None
    device: str | None = None
    update: UpdateReport | None = None
    error: TensorError | None = None


class CaseView(BaseModel):
    """A case of a benchmark: its fastest sparse kernel, and how much faster than dense that is."""

    name: str
    state: JobState
    kernel: str | None = None
    speedup: float | None = None
    error: TensorError | None = None


class Job(BaseModel):
    """A job as clients see it."""

    id: str
    kind: Literal["masks", "benchmark"] = "masks"
    state: JobState
    pattern: str
    axis: str = "in"
    ragged: str = "pad"
    scores: str = "magnitude"
    budget: str | None = None
    floors: list[str] = []
    budget_gap: float | None = None
    """How much more score another way to share the budget out could keep at most, as a share of the bound."""
    update: str | None = None
    solver: str
    cases: list[CaseView] = []
    created_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None
    progress: Progress
    tensors: list[TensorReport] = []
    skipped: list[Skipped] = []


class JobSummary(BaseModel):
    """A job in a list: without its tensors."""

    id: str
    kind: str
    state: JobState
    pattern: str
    solver: str
    created_at: datetime
    finished_at: datetime | None = None
    progress: Progress


class JobPage(BaseModel):
    """A page of jobs, newest first; `next` goes into `?after=` for the following page."""

    jobs: list[JobSummary]
    next: str | None = None


class WorkerInfo(BaseModel):
    """A worker that is alive."""

    name: str
    device: str
    device_name: str
    slots: int
    queues: list[str]
    version: str
    started_at: datetime
    free_bytes: int | None = None
    """Memory that its GPU has left, if it has one."""
