"""Benchmark documents: what is to be measured, how it is planned, what workers say of it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, FailFast, Field, model_validator

from .documents import TensorName
from .errors import TensorError
from .payload_limits import StrictModel

Side = Annotated[int, Field(ge=1, le=2**20)]
Dtype = Literal["float32", "float16", "bfloat16", "float64"]
Name = Annotated[str, Field(min_length=1, max_length=100)]


def _distinct(values: list[Any]) -> list[Any]:
    return list(dict.fromkeys(values))


Distinct = AfterValidator(_distinct)


class LayerInput(StrictModel):
    """A weight of `rows` outputs and `cols` inputs, which the model has `count` times."""

    name: TensorName
    rows: Side
    cols: Side
    count: Annotated[int, Field(ge=1, le=100_000)] = 1


class BenchmarkOptions(StrictModel):
    """How kernels are to be measured; the same for every layer."""

    patterns: Annotated[list[Name], Field(max_length=100), FailFast(), Distinct] = []
    batches: Annotated[list[Side], Field(min_length=1, max_length=100), FailFast(), Distinct] = [1, 32, 256]
    dtypes: Annotated[list[Dtype], Field(min_length=1), FailFast(), Distinct] = ["float32"]
    directions: Annotated[list[Literal["forward", "backward"]], Field(min_length=1), FailFast(), Distinct] = ["forward"]
    kernels: Annotated[list[Name], Field(min_length=1, max_length=100), Distinct] | None = None
    device: Literal["cpu", "cuda"] = "cpu"
    curves: bool = True
    rounds: Annotated[int, Field(ge=1, le=1000)] = 15
    threads: Annotated[int, Field(ge=1, le=1024)] = 1
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0


class BenchmarkRequest(BenchmarkOptions):
    """The document that asks for a benchmark: of layers, of a model that is known by name, or of a job's masks."""

    kind: Literal["benchmark"] = "benchmark"
    layers: Annotated[list[LayerInput], Field(max_length=10_000), FailFast()] = []
    model: Name | None = None
    masks_of: Annotated[str, Field(min_length=1, max_length=64)] | None = None

    @model_validator(mode="after")
    def _one_subject(self) -> BenchmarkRequest:
        if sum((bool(self.layers), self.model is not None, self.masks_of is not None)) != 1:
            raise ValueError("give either layers, or the name of a model, or masks_of: a job that found masks")
        if self.masks_of is None and not self.patterns:
            raise ValueError("patterns: name one at least, such as '2:4'")
        if self.masks_of is not None and self.patterns:
            raise ValueError("masks_of: the job's masks have their pattern; leave patterns out")
        return self


class MaskPart(BaseModel):
    """Some rows of a mask, packed, in the store."""

    result: str
    rows: int


class PlannedMask(BaseModel):
    """A mask of an earlier job that stands for a layer."""

    rows: int
    cols: int
    parts: list[MaskPart]


class BenchmarkPlan(BaseModel):
    """A benchmark made ready: its options, and where given masks are, by layer name."""

    options: BenchmarkOptions
    masks: dict[str, PlannedMask] = {}
    uploads: list[str] = []
    result_bytes: int = 0

    @property
    def headline(self) -> dict[str, str]:
        """What lists of jobs show of it."""
        return {"pattern": ", ".join(self.options.patterns)[:200], "solver": ""}


class PlannedCase(BaseModel):
    """One case, as `masksmith.benchmark` writes it."""

    case: dict[str, Any]


class CaseReport(BaseModel):
    """What a worker says of a finished case: its result as `masksmith.benchmark` writes it, or why there is none."""

    model_config = ConfigDict(ser_json_inf_nan="constants")

    result: dict[str, Any] | None = None
    error: TensorError | None = None


class AnnouncedKernel(BaseModel):
    """A kernel of a worker: its declaration, and why it cannot run there, if it cannot."""

    declaration: dict[str, Any]
    obstacle: str | None = None


class BenchWorker(BaseModel):
    """A worker that measures: its device, and its kernels."""

    name: str
    device: str
    kernels: list[AnnouncedKernel]


class KernelPlace(BaseModel):
    """A worker, and whether a kernel runs there."""

    worker: str
    device: str
    runs: bool
    reason: str | None = None


class KernelInfo(BaseModel):
    """A kernel: what it can do, and on which of the living workers it runs."""

    name: str
    meaning: str
    support: dict[str, Any]
    family: str
    directions: list[str]
    curve: list[str]
    workers: list[KernelPlace] = []
