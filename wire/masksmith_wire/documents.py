"""Documents of jobs: the request for masks, and what the service responds about jobs and workers."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, FailFast, Field, model_validator

from masksmith.benchmark import Gain
from masksmith.layouts import Layout

from .durations import in_about
from .errors import TensorError
from .headers import MAX_DIMENSIONS
from .job_states import JobState as JobState
from .locations import BUCKET_PREFIX
from .measures import ChangeReport, DiversityReport, SpectrumReport, UpdateReport
from .names import JobDescription
from .payload_limits import JSON_FLAG, JSON_NUMBER, StrictModel
from .priorities import Priority
from .scores import ScoreMethod
from .solver_names import SolverName as SolverName
from .updates import UpdateMethod
from .values import Count, Moment, Ratio, Score, Seconds

Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$", description="BLAKE3 of a safetensors file, in hex")]


def _check_not_metadata(name: str) -> str:
    if name == "__metadata__":
        raise ValueError("'__metadata__' is reserved for a safetensors file's metadata and cannot be a tensor's name")
    return name


def _check_printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("it has characters that cannot be printed")
    return text


Reference = Annotated[
    str,
    Field(
        min_length=1,
        max_length=1024,
        examples=["s3://models/llama/model.safetensors"],
        description="A file or a directory in a root of the service: an absolute path, or an `s3://` URL.",
    ),
]
TensorName = Annotated[str, Field(min_length=1, max_length=512), AfterValidator(_check_not_metadata)]
Scores = Annotated[ScoreMethod, Field(examples=["wanda", "ria power=0.7"], description="A method and its options.")]
Update = Annotated[
    UpdateMethod, Field(examples=["reconstruct", "admm penalty=0.1"], description="A method and its options.")
]
JobId = Annotated[str, Field(min_length=1, max_length=64, description="Id of a job."), AfterValidator(_check_printable)]
SolveStatus = Literal["optimal", "feasible", "time_limit"]


class LayoutInput(StrictModel):
    """How a tensor is made of the matrices `[out, in]` that its layer multiplies with, and the rule that decided it.

    `axes` has a word for each dimension: `out`, `in`, `stack` (which counts matrices, such as experts) or `kernel`.
    `out_parts` are the numbers of rows of the matrices that are fused along `out`; the model splits their outputs.
    """

    axes: Annotated[str, Field(max_length=60, examples=["out in", "in out", "stack out in"])]
    out_parts: Annotated[list[Annotated[int, Field(gt=0), JSON_NUMBER]], Field(max_length=4096), FailFast()] = []
    rule: Literal["user", "model", "architecture", "name", "shape"] = "user"

    @classmethod
    def of(cls, layout: Layout) -> LayoutInput:
        """Make the document of a layout."""
        return cls(axes=str(layout), out_parts=list(layout.out_parts), rule=layout.rule)

    def parse(self) -> Layout:
        """Parse the layout.

        Raises:
            LayoutError: If the axes describe no stack of matrices.
        """
        return Layout.parse(self.axes, self.rule, self.out_parts)


class FileInput(StrictModel):
    """The tensor `key` of a safetensors file: of the upload `digest`, or of the file `reference` in a root."""

    digest: Digest | None = None
    reference: Reference | None = None
    key: TensorName

    @model_validator(mode="after")
    def _check_file(self) -> Self:
        if (self.digest is None) == (self.reference is None):
            raise ValueError("give exactly one of digest and reference, to say which file the tensor is in")
        return self

    @property
    def file(self) -> str:
        """Digest of the upload, or the reference."""
        return self.digest or self.reference or ""


class StatisticInput(FileInput):
    """A weight's calibration statistic of one `kind`."""

    kind: Literal["activations", "gradient", "gradient_rms", "gram", "inverse_diagonal", "norms", "scores"]


class TensorInput(FileInput):
    """One weight: `key` names it inside its file, `name` in the results."""

    name: TensorName
    statistic: StatisticInput | None = None
    gram: StatisticInput | None = None
    """Gram matrix of the layer's inputs, which an update needs; by default taken from the job's calibration file."""
    layout: LayoutInput | None = None
    """How the tensor is made of matrices; by default names and shapes decide."""
    pattern: Annotated[str, Field(max_length=100, examples=["2:4"])] | None = None
    """The tensor's own pattern; by default the job's."""


class MasksOptions(StrictModel):
    """Options of a masks job, which apply to every tensor; but a tensor may have its own pattern."""

    pattern: Annotated[str, Field(max_length=100, examples=["transposable 8:16"])]
    axis: Literal["in", "out"] = "in"
    ragged: Literal["pad", "dense", "error"] = "pad"
    scores: Scores = Field("magnitude", validate_default=True)
    calibration: Annotated[str, Field(max_length=1024, pattern=rf"^([0-9a-f]{{64}}$|/|{BUCKET_PREFIX})")] | None = None
    """Digest of the calibration upload, or reference of a calibration file in a root. The file contains the statistics
    of the weight NAME as `NAME/norms` and so on, and scores as `NAME`. A tensor's `statistic` takes precedence."""
    budget: Annotated[str, Field(max_length=60, examples=["50%"])] | None = None
    """Share of the entries of all tensors together to keep, divided between the tensors so that the most score is
    kept."""
    floors: Annotated[
        list[Annotated[str, Field(max_length=600, examples=["*.query*=25%"])]], Field(max_length=1000), FailFast()
    ] = []
    """Texts `GLOB=SHARE`: the minimum share to keep of each tensor whose name matches the glob."""
    update: Update | None = None
    """How kept weights are updated; None leaves them unchanged."""
    previous: Annotated[str, Field(max_length=1024, pattern=rf"^([0-9a-f]{{1,64}}$|/|{BUCKET_PREFIX})")] | None = None
    """The masks with which the new masks are compared: the id of an earlier job, the digest of an uploaded masks file,
    or the reference of a masks file or of an output in a root."""
    spectrum: bool = False
    """Whether to compute the singular values of the masked weights."""
    solver: SolverName = "auto"
    time_limit_s: Annotated[float, Field(gt=0, le=86_400)] | None = None


class OutputInput(StrictModel):
    """A pruned copy of `model`, written to the directory `location`; both are references.

    `model` is a safetensors file, an index, or a model's directory; the job's tensors must belong to it.
    """

    location: Reference
    model: Reference


class MasksRequest(JobDescription, MasksOptions):
    """Request for masks of tensors, which are in uploads or in files of roots."""

    kind: Literal["masks"] = "masks"
    # The next two are declared again to check their JSON types: the query of a URL, which `MasksOptions` is also read
    # from, has only texts.
    spectrum: Annotated[bool, JSON_FLAG] = False
    """Whether to compute the singular values of the masked weights."""
    time_limit_s: Annotated[float, Field(gt=0, le=86_400), JSON_NUMBER] | None = None
    tensors: Annotated[list[TensorInput], Field(min_length=1), FailFast()]
    output: OutputInput | None = None
    """Where a pruned copy of the model is written."""


class Progress(BaseModel):
    """Number of finished shards, and of all shards."""

    done: Count
    total: Count


class Skipped(BaseModel):
    """A tensor that is not masked, and the reason."""

    name: str
    reason: str


class TensorReport(BaseModel):
    """Results for one tensor; its measured and computed numbers are null unless all of its shards have succeeded."""

    name: str
    state: JobState
    shape: Annotated[list[Count], Field(max_length=MAX_DIMENSIONS)]
    layout: LayoutInput | None = None
    """How the tensor is made of matrices, and which rule decided it."""
    pattern: str | None = None
    """The tensor's own pattern, if the request gave it one or a budget assigned it."""
    status: SolveStatus | None = None
    objective: Score | None = None
    upper_bound: Score | None = None
    gap: Ratio | None = None
    retained: Ratio | None = None
    total_score: Score | None = None
    """Sum of the scores of all entries; also null if an older service, which did not report it, wrote the document."""
    density: Ratio | None = None
    fill: Ratio | None = None
    """Kept entries, as a share of the maximum that the pattern allows."""
    storage_bytes: dict[str, Count | None] | None = None
    """Size of the masked weight, by storage format, with values in the weight's own dtype."""
    diversity: DiversityReport | None = None
    change: ChangeReport | None = None
    spectrum: SpectrumReport | None = None
    solve_s: Seconds | None = None
    solver: str | None = None
    device: str | None = None
    update: UpdateReport | None = None
    error: TensorError | None = None


class OutputFileReport(BaseModel):
    """A file of weights of an output, and the state of its writing."""

    name: str
    state: JobState
    error: TensorError | None = None


class OutputReport(BaseModel):
    """The output of a job; its directory is marked as unfinished until all its files are complete."""

    location: str
    files: list[OutputFileReport]


class CaseView(BaseModel):
    """A benchmark case: its fastest sparse kernel, and that kernel's speed-up over dense; null without such a kernel.

    `low` and `high` are the range of the speed-up, from the 20 % and 80 % quantiles of the times of the sparse kernel
    and of the dense one.
    """

    name: str
    state: JobState
    kernel: str | None = None
    speedup: float | None = None
    low: float | None = None
    high: float | None = None
    error: TensorError | None = None

    @property
    def gain(self) -> str:
        """The speed-up as text, which says if it is within the noise; empty if there is none."""
        if self.speedup is None:
            return ""
        if self.low is None or self.high is None:  # An older service sends no range.
            return f"{self.speedup:.2f}x"
        return str(Gain(self.speedup, self.low, self.high))


class WaitingFor(BaseModel):
    """The workers that a live job waits for, because no living worker takes its shards.

    `queue` is the queue of the shards; workers of this `role` and `device` consume it.
    """

    queue: str
    role: Literal["search", "bench"]
    device: Literal["cpu", "cuda"]

    def __str__(self) -> str:
        option = "cpu" if self.device == "cpu" else "cuda:0"
        return (
            f"no worker is alive that {'finds masks' if self.role == 'search' else 'measures'} on {self.device}; start "
            f"one with 'masksmith worker --role {self.role} --device {option}'"
        )


class QueuePosition(BaseModel):
    """Position of a queued job, by the order in which keys and jobs share the workers.

    `jobs_ahead` counts the jobs that are taken before it, up to a hundred. `starts_in_s` estimates the seconds until
    the job starts; null if no worker is alive or too many jobs are queued. Jobs that are submitted later can be taken
    before it.
    """

    jobs_ahead: Count
    starts_in_s: Seconds | None = None

    def __str__(self) -> str:
        jobs = "1 job" if self.jobs_ahead == 1 else f"{self.jobs_ahead} jobs"
        ahead = f"{jobs} ahead" if self.jobs_ahead else "next in the queue"
        return ahead if self.starts_in_s is None else f"{ahead}, starts {in_about(self.starts_in_s)}"


class Job(BaseModel):
    """The document of a job."""

    id: JobId
    name: str | None = None
    labels: dict[str, str] = {}
    priority: Priority = Priority.NORMAL
    """Priority among the jobs of the same API key: the requested one, or the highest that the key allows."""
    kind: Literal["masks", "benchmark"] = "masks"
    state: JobState
    pattern: str
    axis: str = "in"
    ragged: str = "pad"
    scores: str = "magnitude"
    budget: str | None = None
    floors: list[str] = []
    budget_gap: float | None = None
    """Relative optimality gap of the division of the budget between tensors; 0 proves that no division keeps more."""
    update: str | None = None
    solver: str
    cases: list[CaseView] = []
    created_at: Moment
    started_at: Moment | None = None
    finished_at: Moment | None = None
    waiting_for: WaitingFor | None = None
    """The workers that the job waits for, if no living worker takes its shards."""
    position: QueuePosition | None = None
    """Position in the queue, while the job is queued."""
    progress: Progress
    tensors: list[TensorReport] = []
    skipped: list[Skipped] = []
    output: OutputReport | None = None


class JobSummary(BaseModel):
    """An entry of a job list: a job without its tensors; `key` is the id of the API key that it belongs to, or null."""

    id: JobId
    key: str | None = None
    name: str | None = None
    labels: dict[str, str] = {}
    kind: str
    state: JobState
    pattern: str
    solver: str
    created_at: Moment
    finished_at: Moment | None = None
    progress: Progress


class JobPage(BaseModel):
    """A page of jobs, newest first; `next` is the value of `?after=` that gives the following page."""

    jobs: list[JobSummary]
    next: str | None = None


class WorkerInfo(BaseModel):
    """A live worker."""

    name: str
    device: str
    device_name: str
    slots: Count
    queues: list[str]
    version: str
    started_at: Moment
    free_bytes: Count | None = None
    """Free memory of the worker's GPU, in bytes; null for a CPU worker, or if it cannot be read."""
