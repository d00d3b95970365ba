"""Planning: before anything runs, turns a request into cases, and rejects what cannot be measured."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import islice, product
from typing import Any

from masksmith.patterns import PatternError, parse

from .cases import BASELINES, DIRECTIONS, DTYPES, Case, Direction, Layer
from .declaration import Declaration
from .errors import BenchmarkError

AXES = ("layers", "patterns", "batches", "dtypes", "directions")
"""Attributes of a request; each combination of their values is a case."""
MAX_CASES = 20_000
MAX_BATCH = 2**20


@dataclass(frozen=True)
class Request:
    """A request for a benchmark.

    Attributes:
        layers: Weights to measure.
        patterns: Patterns of their masks, as strings.
        batches: Numbers of rows of the activations.
        dtypes: `float32`, `float16`, `bfloat16` or `float64`.
        directions: `forward`, `backward`.
        kernels: Names of kernels, to which `dense` is added; None selects all. Each case is measured with those of
            the selected kernels that support it.
        device: `cpu`, or a CUDA device.
        curves: Whether to measure the selected kernels over a range of densities, too, for their break-even.
    """

    layers: Sequence[Layer]
    patterns: Sequence[str]
    batches: Sequence[int] = (1, 32, 256)
    dtypes: Sequence[str] = ("float32",)
    directions: Sequence[Direction] = ("forward",)
    kernels: Sequence[str] | None = None
    device: str = "cpu"
    curves: bool = True


def plan(request: Request, declarations: Mapping[str, Declaration]) -> list[Case]:
    """Return the cases of a request; with `curves`, also the cases of the kernels' curves.

    Raises:
        BenchmarkError: If the request is invalid or has too many cases; if a kernel that it names supports none of the
            patterns; or if such a kernel does not support the device, or the dtype, direction or shape of some case.
            The message has the reason.
    """
    _check_values(request)
    request = _without_duplicates(request)
    selected = _select_kernels(request, declarations)
    # Counted before the cases are built, since a request may have far too many.
    _check_case_count(math.prod(len(getattr(request, name)) for name in AXES))
    requested = [
        Case(layer, batch, dtype, pattern, direction)
        for layer, pattern, dtype, direction, batch in product(
            request.layers, request.patterns, request.dtypes, request.directions, request.batches
        )
    ]
    for layer, pattern in product(request.layers, request.patterns):
        _check_fit(layer, pattern)
    if request.kernels is not None:
        _check_requested_kernels(requested, selected, request.device)
    cases = [replace(case, kernels=_supporting_kernels(case, selected, request.device)) for case in requested]
    if request.curves:
        # No more points are built than are needed to see that there are too many.
        points = list(islice(_curve_cases(cases, selected, request.device), MAX_CASES - len(cases) + 1))
        if len(cases) + len(points) > MAX_CASES:
            message = f"cases and points of curves are more than {MAX_CASES}; request fewer cases, or no curves"
            raise BenchmarkError("invalid_benchmark", message)
        # Cases with the same weight and mask are adjacent, so that both are computed once.
        cases += sorted(points, key=lambda case: (case.layer.shape, case.pattern))
    return cases


def _check_case_count(count: int) -> None:
    if count > MAX_CASES:
        raise BenchmarkError("invalid_benchmark", f"{count} cases are more than {MAX_CASES}; request fewer")


def _check_values(request: Request) -> None:
    for name in AXES:
        if not getattr(request, name):
            raise BenchmarkError("invalid_benchmark", f"{name}: the list is empty")
    for dtype in request.dtypes:
        if dtype not in DTYPES:
            raise BenchmarkError("invalid_benchmark", f"dtype {dtype!r}: choose from {', '.join(DTYPES)}")
    for direction in request.directions:
        if direction not in DIRECTIONS:
            raise BenchmarkError("invalid_benchmark", f"direction {direction!r}: choose from {', '.join(DIRECTIONS)}")
    for layer in request.layers:
        if layer.count < 1:
            raise BenchmarkError("invalid_benchmark", f"layer {layer.name!r}: count {layer.count} is less than 1")
    for batch in request.batches:
        if not 1 <= batch <= MAX_BATCH:
            raise BenchmarkError("invalid_benchmark", f"batch {batch}: must lie between 1 and {MAX_BATCH}")


def _without_duplicates(request: Request) -> Request:
    """Return the request with patterns in their string form, and with every value once; layers are not changed.

    The times of a case that is planned twice would be added twice in the estimates for whole models.
    """
    values: dict[str, Any] = {name: tuple(dict.fromkeys(getattr(request, name))) for name in AXES if name != "layers"}
    values["patterns"] = tuple(dict.fromkeys(_string_form(pattern) for pattern in values["patterns"]))
    return replace(request, **values)


def _string_form(pattern: str) -> str:
    """Return the string form of a pattern, which `conclusions.family` expects, such as `50%` for ` 50 %`.

    An invalid text is returned unchanged.
    """
    try:
        return str(parse(pattern))
    except PatternError:
        return pattern


def _check_fit(layer: Layer, pattern: str) -> None:
    """Raise `BenchmarkError` if a pattern is invalid, or does not fit the shape of a layer."""
    try:
        parse(pattern, ragged="error").grid((layer.rows, layer.cols))
    except PatternError as error:
        reason = str(error).partition("; choose ragged")[0]
        message = f"layer {layer.name!r} ({layer.shape}), pattern {pattern!r}: {reason}"
        raise BenchmarkError("invalid_benchmark", message) from None


def _select_kernels(request: Request, declarations: Mapping[str, Declaration]) -> list[Declaration]:
    """Return all kernels if `request.kernels` is None, else `dense` and those that it names."""
    if request.kernels is None:
        return list(declarations.values())
    for name in request.kernels:
        if name not in declarations:
            names = ", ".join(sorted(declarations))
            raise BenchmarkError("unknown_kernel", f"there is no kernel {name!r}; there are {names}")
    return [declarations[name] for name in dict.fromkeys(("dense", *request.kernels))]


def _check_requested_kernels(cases: Sequence[Case], selected: Sequence[Declaration], device: str) -> None:
    for kernel in selected:
        refusals = [(case, kernel.refusal(case, device)) for case in cases]
        unsupported = [(case, refusal) for case, refusal in refusals if refusal is not None]
        not_due_to_pattern = [(case, refusal) for case, refusal in unsupported if refusal.constraint != "pattern"]
        # A kernel need not support every pattern of a request, but at least one of them.
        refused = not_due_to_pattern or (unsupported if len(unsupported) == len(cases) else [])
        if refused:
            case, refusal = refused[0]
            raise BenchmarkError("kernel_refused", f"kernel {kernel.name!r} cannot do {case}: {refusal.reason}")


def _supporting_kernels(case: Case, selected: Sequence[Declaration], device: str) -> tuple[str, ...]:
    """Return the names of the kernels that support a case, baselines first."""
    names = [kernel.name for kernel in selected if kernel.refusal(case, device) is None]
    return tuple(sorted(names, key=lambda name: (name not in BASELINES, name)))


def _curve_cases(requested: Sequence[Case], selected: Sequence[Declaration], device: str) -> Iterator[Case]:
    """Yield the cases of each kernel's curve over density.

    A case is left out if it is requested with this kernel, if its pattern does not fit, or if the kernel does not
    support it.
    """
    requested_pairs = {(replace(case, kernels=()), name) for case in requested for name in case.kernels}
    without_pattern = dict.fromkeys(replace(case, kernels=(), pattern="") for case in requested)
    # Cases that differ in batch, dtype or direction have the same layer and pattern: each pair is checked once.
    fits = cache(_fits)
    for case, kernel in product(without_pattern, selected):
        for pattern in kernel.curve:
            if not fits(case.layer, pattern):
                continue
            point = replace(case, pattern=pattern)
            if (point, kernel.name) not in requested_pairs and kernel.refusal(point, device) is None:
                yield replace(point, purpose="curve", kernels=("dense", kernel.name))


def _fits(layer: Layer, pattern: str) -> bool:
    try:
        _check_fit(layer, pattern)
    except BenchmarkError:
        return False
    return True
