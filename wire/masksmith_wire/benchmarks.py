"""Benchmark documents: requests, plans, case reports, and the kernels that workers announce."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, FailFast, Field, model_validator

from .documents import TensorName
from .errors import TensorError
from .names import JobDescription
from .payload_limits import JSON_FLAG, JSON_NUMBER, StrictModel

Side = Annotated[int, Field(ge=1, le=2**20), JSON_NUMBER]
Dtype = Literal["float32", "float16", "bfloat16", "float64"]
Name = Annotated[str, Field(min_length=1, max_length=100)]
PatternText = Name
BatchSize = Side


def _without_duplicates(values: list[Any]) -> list[Any]:
    return list(dict.fromkeys(values))


DropDuplicates = AfterValidator(_without_duplicates)


class LayerInput(StrictModel):
    """A weight of `rows` outputs and `cols` inputs; the model has `count` layers of this shape."""

    name: TensorName
    rows: Side
    cols: Side
    count: Annotated[int, Field(ge=1, le=100_000), JSON_NUMBER] = 1


class BenchmarkOptions(StrictModel):
    """Measurement options, which apply to every layer.

    With `curves`, further densities are measured, to find the density at which a kernel is as fast as the dense
    product. `batches` are batch sizes: numbers of rows of activations that are multiplied by the weight at once.
    """

    patterns: Annotated[list[PatternText], Field(max_length=100), FailFast(), DropDuplicates] = []
    batches: Annotated[list[BatchSize], Field(min_length=1, max_length=100), FailFast(), DropDuplicates] = [1, 32, 256]
    dtypes: Annotated[list[Dtype], Field(min_length=1, max_length=100), FailFast(), DropDuplicates] = ["float32"]
    directions: Annotated[
        list[Literal["forward", "backward"]], Field(min_length=1, max_length=100), FailFast(), DropDuplicates
    ] = ["forward"]
    kernels: Annotated[list[Name], Field(min_length=1, max_length=100), DropDuplicates] | None = None
    device: Literal["cpu", "cuda"] = "cpu"
    curves: Annotated[bool, JSON_FLAG] = True
    rounds: Annotated[int, Field(ge=1, le=1000), JSON_NUMBER] = 15
    threads: Annotated[int, Field(ge=1, le=1024), JSON_NUMBER] = 1
    seed: Annotated[int, Field(ge=0, lt=2**32), JSON_NUMBER] = 0


class BenchmarkRequest(JobDescription, BenchmarkOptions):
    """Request for a benchmark of layers, of a model known by name, or of the masks of a job."""

    kind: Literal["benchmark"] = "benchmark"
    layers: Annotated[list[LayerInput], Field(max_length=10_000), FailFast()] = []
    model: Name | None = None
    masks_of: Annotated[str, Field(min_length=1, max_length=64)] | None = None

    @model_validator(mode="after")
    def _check_subject(self) -> BenchmarkRequest:
        if sum((bool(self.layers), self.model is not None, self.masks_of is not None)) != 1:
            raise ValueError("give exactly one of layers, model (a known name) and masks_of (the id of a masks job)")
        if self.masks_of is None and not self.patterns:
            raise ValueError("patterns: give at least one, such as '2:4'")
        if self.masks_of is not None and self.patterns:
            raise ValueError("masks_of: the job's masks have their pattern; leave patterns out")
        return self


class PlannedMaskPart(BaseModel):
    """Consecutive rows of a packed mask.

    Attributes:
        result: Key of the blob that contains the rows.
        rows: Number of rows.
        digest: Digest of the blob; None if it is not known.
    """

    result: str
    rows: int
    digest: str | None = None


class PlannedMask(BaseModel):
    """A mask of an earlier job, which is measured in place of a generated one."""

    rows: int
    cols: int
    parts: list[PlannedMaskPart]


class BenchmarkPlan(BaseModel):
    """The plan of a benchmark job: its options, and the masks to measure, by layer name, if `masks_of` names a job.

    `uploads` is empty and `result_bytes` is 0; they exist because the plans of all jobs must have these members.
    """

    options: BenchmarkOptions
    masks: dict[str, PlannedMask] = {}
    uploads: list[str] = []
    result_bytes: int = 0

    @property
    def earlier_results(self) -> list[str]:
        """Keys of the results of the earlier job whose masks are measured."""
        return sorted({part.result for mask in self.masks.values() for part in mask.parts})

    @property
    def summary_fields(self) -> dict[str, str]:
        """`pattern`, cut to 200 characters, and `solver`, for job lists and for the document of the job."""
        return {"pattern": ", ".join(self.options.patterns)[:200], "solver": ""}


class PlannedCase(BaseModel):
    """One benchmark case, as a document of `masksmith.benchmark`."""

    case: dict[str, Any]


class CaseReport(BaseModel):
    """A worker's report of a finished case: its result, as a document of `masksmith.benchmark`, or an error."""

    model_config = ConfigDict(ser_json_inf_nan="constants")

    result: dict[str, Any] | None = None
    error: TensorError | None = None


class AnnouncedKernel(BaseModel):
    """A kernel of a worker: its declaration, and in `obstacle` why it cannot run on that worker; None if it can."""

    declaration: dict[str, Any]
    obstacle: str | None = None


class BenchWorker(BaseModel):
    """A benchmark worker: its device and its kernels."""

    name: str
    device: str
    kernels: list[AnnouncedKernel]


class KernelPlace(BaseModel):
    """Whether a kernel runs on a worker; if not, `reason` says why."""

    worker: str
    device: str
    runs: bool
    reason: str | None = None


class KernelInfo(BaseModel):
    """A kernel: what it supports, and on which live workers it runs.

    `meaning` describes it in a sentence; `support` has what it can do, by kind of device (`cpu`, `cuda`); `family` is
    the family of patterns that it supports: `any`, `n:m`, `2:4` or `block`; `curve` has the
    patterns, from dense to sparse, that are measured to find its break-even density, and is empty for baselines.
    """

    name: str
    meaning: str
    support: dict[str, Any]
    family: str
    directions: list[str]
    curve: list[str]
    workers: list[KernelPlace] = []
