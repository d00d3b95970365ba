"""A benchmark worked out before anything is sent: shapes from a model, options checked as the service would."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, TypedDict

from pydantic import ValidationError

from masksmith.benchmark import MODELS, Layer, group, read_shapes
from masksmith.layouts import FLOAT_DTYPES, Candidate, SelectionError, select
from masksmith_client._errors import InputError
from masksmith_wire.benchmarks import BenchmarkRequest, LayerInput

from .prepare import read_weights
from .weights import Weight


class BenchmarkOptions(TypedDict, total=False):
    """What a benchmark may be told besides its layers and patterns.

    Attributes:
        batches: Rows of activations; 1, 32 and 256 unless given.
        dtypes: `float32`, `float16`, `bfloat16`, `float64`.
        directions: `forward` (`X W^T`), `backward` (`dY W`).
        kernels: Names; every one that fits unless given.
        device: `cpu` or `cuda`.
        curves: Measure kernels over a range of densities as well, which finds their break-even.
        rounds: Times that each kernel's turn comes.
        threads: Threads of a kernel on a CPU; 1 unless given.
        seed: Of weights and activations.
    """

    batches: Sequence[int]
    dtypes: Sequence[str]
    directions: Sequence[Literal["forward", "backward"]]
    kernels: Sequence[str] | None
    device: str
    curves: bool
    rounds: int
    threads: int
    seed: int


def prepare_benchmark(
    model: object = None,
    patterns: str | Iterable[object] = (),
    *,
    masks_of: str | None = None,
    layers: Sequence[str] | None = None,
    exclude: Sequence[str] | None = None,
    **options: Any,
) -> BenchmarkRequest:
    """Read shapes and check options.

    Args:
        model: A well-known model's name, shapes such as `"1536x384*6"`, a path, a mapping of names to tensors, or a
            torch module; of the last three the two-dimensional float weights count, and only their shapes travel.
        patterns: One pattern or several.
        masks_of: The id of a masks job, instead of both.
        layers: Names or globs: only these weights.
        exclude: Names or globs: not these.
        options: See `BenchmarkOptions`.

    Raises:
        InputError: Naming what cannot be used.
    """
    texts = [patterns] if isinstance(patterns, str) else [str(pattern) for pattern in patterns]
    subject = {} if masks_of is not None and model is None else _subject(model, layers, exclude)
    try:
        return BenchmarkRequest.model_validate({"patterns": texts, "masks_of": masks_of, **subject, **options})
    except ValidationError as error:
        fault = error.errors()[0]
        place = ".".join(str(part) for part in fault["loc"])
        raise InputError(f"{place}: {fault['msg']}" if place else fault["msg"].removeprefix("Value error, ")) from None


def request_layers(request: BenchmarkRequest) -> list[Layer]:
    """Give the layers that a request names."""
    if request.model is not None:
        return MODELS[request.model]
    return [Layer(**layer.model_dump()) for layer in request.layers]


def _subject(model: object, layers: Sequence[str] | None, exclude: Sequence[str] | None) -> dict[str, Any]:
    if model is None:
        raise InputError("what is to be measured? Name a model, shapes, or masks of a job")
    if isinstance(model, str) and model in MODELS:
        return {"model": model}
    found = _shapes(model, layers, exclude)
    return {"layers": [LayerInput(name=one.name, rows=one.rows, cols=one.cols, count=one.count) for one in found]}


def _shapes(model: object, layers: Sequence[str] | None, exclude: Sequence[str] | None) -> list[Layer]:
    texts = [model] if isinstance(model, str) else model
    if isinstance(texts, Sequence) and all(isinstance(text, str) for text in texts):
        try:
            return read_shapes(texts)
        except ValueError as error:
            if not isinstance(model, str) or not Path(model).exists():
                known = ", ".join(MODELS)
                raise InputError(f"{error}; or name a model ({known}) or a checkpoint's path") from None
    weights = {weight.name: weight for weight in read_weights(model)}
    try:
        selection = select([_candidate(weight) for weight in weights.values()], None, layers, exclude)
    except SelectionError as error:
        if error.kind == "unsupported":
            raise InputError(f"{error.name!r} cannot be measured: {error.reason}") from None
        nothing_left = "no weight is left to measure: " if error.kind == "nothing_left" else ""
        raise InputError(f"{nothing_left}{error}") from None
    chosen = [weights[name] for name in selection.chosen]
    return group((weight.name, weight.shape[0], weight.shape[1]) for weight in chosen)


def _candidate(weight: Weight) -> Candidate:
    is_measured = len(weight.shape) == 2 and 0 not in weight.shape and weight.dtype in FLOAT_DTYPES
    reason = None if is_measured else "two-dimensional float tensors count, if they are not empty"
    return Candidate(weight.name, weight.shape, weight.dtype, unsupported_reason=reason)
