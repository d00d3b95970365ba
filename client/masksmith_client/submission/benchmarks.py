"""Build and validate benchmark requests: layer shapes from a model, and options."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, TypedDict

from pydantic import ValidationError

from masksmith.benchmark import MODELS, Layer, group, read_shapes
from masksmith.layouts import FLOAT_DTYPES, Candidate, SelectionError, select
from masksmith.patterns import Pattern, PatternError
from masksmith_client._errors import InputError
from masksmith_wire.benchmarks import BenchmarkRequest, LayerInput
from masksmith_wire.names import default_name
from masksmith_wire.priorities import PriorityName
from masksmith_wire.validation import located_reason

from .description import describe, subject_of_weights
from .input_weights import read_weights
from .selection import candidates_of
from .streamed_tensor import StreamedTensor


class BenchmarkOptions(TypedDict, total=False):
    """Options of a benchmark, besides its layers and patterns.

    Attributes:
        batches: Numbers of rows of the activations; default 1, 32 and 256.
        dtypes: `float32` (the default), `float16`, `bfloat16`, `float64`.
        directions: `forward` (`X W^T`, the default), `backward` (`dY W`).
        kernels: Names of kernels; default all that support the device and pattern.
        device: `cpu` (the default) or `cuda`.
        curves: Also measure kernels over a range of densities, to find their break-even density; default True.
        rounds: Repetitions of each kernel's measurement; default 15.
        threads: Threads of a kernel on a CPU; default 1.
        seed: Random seed of weights and activations; default 0.
        name: Name of the job, shown in lists; default the model or checkpoint, and the patterns.
        labels: Labels that the job can be found by in lists, such as `{"team": "vision"}`.
        priority: Its priority among the jobs of the same key: `interactive`, `normal` (the default) or `batch`.
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
    name: str | None
    labels: Mapping[str, str] | None
    priority: PriorityName


def prepare_benchmark(
    model: object = None,
    patterns: str | Pattern | Iterable[object] = (),
    *,
    masks_of: str | None = None,
    layers: Sequence[str] | None = None,
    exclude: Sequence[str] | None = None,
    name: str | None = None,
    labels: Mapping[str, str] | None = None,
    priority: PriorityName = "normal",
    **options: Any,
) -> BenchmarkRequest:
    """Build a benchmark request: read shapes and validate options.

    Args:
        model: A well-known model's name, shapes such as `"1536x384*6"`, a path, a mapping of names to tensors, or a
            torch module. Of the last three, the two-dimensional float weights are used, and only their shapes are sent.
        patterns: One pattern or several.
        masks_of: The id of a masks job, instead of model and patterns.
        layers: Names or globs of the weights to measure. Refused for a well-known model, for shapes, and for
            `masks_of`.
        exclude: Names or globs of weights to leave out. Refused in the same cases.
        name: See `BenchmarkOptions`.
        labels: See `BenchmarkOptions`.
        priority: See `BenchmarkOptions`.
        options: See `BenchmarkOptions`.

    Raises:
        InputError: If an argument is invalid (the message names it), or a checkpoint cannot be read.
    """
    several = [patterns] if isinstance(patterns, str | Pattern) else patterns
    pattern_texts = [str(pattern) for pattern in several]
    description = describe(_default_name(model, pattern_texts) if name is None else name, labels, priority)
    measures_job = masks_of is not None and model is None
    if measures_job:
        _check_no_selection("the masks of a job", layers, exclude)
    model_or_layers = {} if measures_job else _model_or_layers(model, layers, exclude)
    try:
        members = {"patterns": pattern_texts, "masks_of": masks_of, **model_or_layers, **options}
        return BenchmarkRequest.model_validate(members | description.model_dump(exclude_defaults=True))
    except ValidationError as error:
        raise InputError(located_reason(error.errors()[0])) from None


def _default_name(model: object, patterns: Sequence[str]) -> str | None:
    """Return the name of a benchmark of a checkpoint or module; None for others, whose names the service chooses."""
    if isinstance(model, str) and not os.path.exists(model):
        return None
    subject = subject_of_weights(model)
    return None if subject is None else default_name(subject, ", ".join(patterns))


def request_layers(request: BenchmarkRequest) -> list[Layer]:
    """Return the layers of a request; a named model is looked up, and a request with `masks_of` has none."""
    if request.model is not None:
        return MODELS[request.model]
    return [Layer(**layer.model_dump()) for layer in request.layers]


def _model_or_layers(model: object, layers: Sequence[str] | None, exclude: Sequence[str] | None) -> dict[str, Any]:
    """Return the member `model` or `layers` of a request, as a dictionary with one item."""
    if model is None:
        raise InputError("nothing to measure: pass a model, shapes, or masks_of with a job's id")
    if isinstance(model, str) and model in MODELS:
        _check_no_selection(f"the model {model}", layers, exclude)
        return {"model": model}
    return {
        "layers": [
            LayerInput(name=layer.name, rows=layer.rows, cols=layer.cols, count=layer.count)
            for layer in _read_layers(model, layers, exclude)
        ]
    }


def _read_layers(model: object, layers: Sequence[str] | None, exclude: Sequence[str] | None) -> list[Layer]:
    shapes = _parse_shapes(model)
    if shapes is not None:
        _check_no_selection("shapes", layers, exclude)
        return shapes
    weights = read_weights(model).tensors
    try:
        selection = select([_candidate(weight) for weight in weights], None, layers, exclude)
    except PatternError as error:
        raise InputError(str(error)) from None
    except SelectionError as error:
        if error.kind == "unsupported":
            raise InputError(f"{error.name!r} cannot be measured: {error.reason}") from None
        prefix = "no weight is left to measure: " if error.kind == "nothing_left" else ""
        raise InputError(f"{prefix}{error}") from None
    candidates = {candidate.name: candidate for candidate in candidates_of(weights)}
    return group((name, *_outputs_and_inputs(candidates[name])) for name in selection.chosen)


def _parse_shapes(model: object) -> list[Layer] | None:
    """Return the layers if `model` is a string or strings with shapes; None for an existing path or another type.

    Raises:
        InputError: If a text is neither a shape nor an existing path.
    """
    texts = [model] if isinstance(model, str) else model
    if not isinstance(texts, Sequence) or not all(isinstance(text, str) for text in texts):
        return None
    try:
        return read_shapes(texts)
    except ValueError as error:
        if isinstance(model, str) and os.path.exists(model):
            return None
        model_names = ", ".join(MODELS)
        raise InputError(f"{error}; or name a model ({model_names}) or a checkpoint's path") from None


def _outputs_and_inputs(candidate: Candidate) -> tuple[int, int]:
    """Return the numbers of outputs and inputs of a matrix, which may be stored as `[in, out]`, as GPT-2 stores it."""
    out, in_ = (0, 1) if candidate.layout is None else candidate.layout.order
    return candidate.shape[out], candidate.shape[in_]


def _check_no_selection(subject: str, layers: Sequence[str] | None, exclude: Sequence[str] | None) -> None:
    """Check that `layers` and `exclude` are empty, for a benchmark of `subject`, which has no weights to select.

    Raises:
        InputError: If one of them is not empty.
    """
    for option, names in (("layers", layers), ("exclude", exclude)):
        if names:
            raise InputError(
                f"{option}={list(names)!r} selects weights of a checkpoint by name, and is not for {subject}; omit it"
            )


def _candidate(weight: StreamedTensor) -> Candidate:
    is_measurable = len(weight.shape) == 2 and 0 not in weight.shape and weight.dtype in FLOAT_DTYPES
    reason = None if is_measurable else "only non-empty two-dimensional float tensors can be measured"
    return Candidate(weight.name, weight.shape, weight.dtype, unsupported_reason=reason)
