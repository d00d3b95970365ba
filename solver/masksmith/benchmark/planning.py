"""Planning: what was asked becomes cases, and what cannot be measured is refused by name before anything runs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product

from masksmith.patterns import PatternError, parse

from .cases import BASELINES, DIRECTIONS, DTYPES, Case, Direction, Layer
from .declaration import Declaration
from .errors import BenchmarkError

MEMBERS = ("layers", "patterns", "batches", "dtypes", "directions")
MAX_CASES = 20_000
MAX_BATCH = 2**20


@dataclass(frozen=True)
class Request:
    """What is asked.

    Attributes:
        layers: Weights to measure.
        patterns: Of their masks, as strings.
        batches: Rows of activations.
        dtypes: `float32`, `float16`, `bfloat16` or `float64`.
        directions: `forward`, `backward`.
        kernels: By name; None takes every one that fits, and says of the others why they do not.
        device: `cpu`, or a CUDA device.
        curves: Measure every kernel over a range of densities as well: that finds where it breaks even.
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
    """Make the cases of a request.

    Kernels that were named must be able to do what is asked: their device, dtype, direction and shape must fit every
    case whose pattern they take, and they must take one pattern at least.

    Raises:
        BenchmarkError: If they cannot, or the request makes no sense; the message names the culprit.
    """
    _check(request)
    chosen = _chosen(request, declarations)
    _check_number(math.prod(len(getattr(request, name)) for name in MEMBERS))
    asked = [
        Case(layer, batch, dtype, pattern, direction)
        for layer, pattern, dtype, direction, batch in product(
            request.layers, request.patterns, request.dtypes, request.directions, request.batches
        )
    ]
    for case in asked:
        _check_fit(case)
    if request.kernels is not None:
        _check_named(asked, chosen, request.device)
    cases = [replace(case, kernels=_names(case, chosen, request.device)) for case in asked]
    if request.curves:
        # What shares a weight and its mask stands together: both are then made once.
        points = _curves(cases, chosen, request.device)
        cases += sorted(points, key=lambda case: (case.layer.shape, case.pattern))
    _check_number(len(cases))
    return cases


def _check_number(cases: int) -> None:
    if cases > MAX_CASES:
        raise BenchmarkError("invalid_benchmark", f"{cases} cases are more than {MAX_CASES}; ask for less")


def _check(request: Request) -> None:
    for name in MEMBERS:
        if not getattr(request, name):
            raise BenchmarkError("invalid_benchmark", f"{name}: nothing was given")
    for dtype in request.dtypes:
        if dtype not in DTYPES:
            raise BenchmarkError("invalid_benchmark", f"dtype {dtype!r}: choose from {', '.join(DTYPES)}")
    for direction in request.directions:
        if direction not in DIRECTIONS:
            raise BenchmarkError("invalid_benchmark", f"direction {direction!r}: choose from {', '.join(DIRECTIONS)}")
    for batch in request.batches:
        if not 1 <= batch <= MAX_BATCH:
            raise BenchmarkError("invalid_benchmark", f"batch {batch}: must lie between 1 and {MAX_BATCH}")


def _check_fit(case: Case) -> None:
    """Refuse a pattern that is none, or that no mask of the shape can obey."""
    try:
        parse(case.pattern, ragged="error").grid((case.layer.rows, case.layer.cols))
    except PatternError as error:
        reason = str(error).partition("; choose ragged")[0]
        message = f"layer {case.layer.name!r} ({case.layer.shape}), pattern {case.pattern!r}: {reason}"
        raise BenchmarkError("invalid_benchmark", message) from None


def _chosen(request: Request, declarations: Mapping[str, Declaration]) -> list[Declaration]:
    if request.kernels is None:
        return list(declarations.values())
    for name in request.kernels:
        if name not in declarations:
            known = ", ".join(sorted(declarations))
            raise BenchmarkError("unknown_kernel", f"there is no kernel {name!r}; there are {known}")
    return [declarations[name] for name in dict.fromkeys(("dense", *request.kernels))]


def _check_named(cases: Sequence[Case], chosen: Sequence[Declaration], device: str) -> None:
    for kernel in chosen:
        refusals = [(case, kernel.refusal(case, device)) for case in cases]
        firm = [(case, found) for case, found in refusals if found is not None and found.what != "pattern"]
        mild = [(case, found) for case, found in refusals if found is not None]
        faults = firm or (mild if len(mild) == len(cases) else [])
        for case, found in faults[:1]:
            raise BenchmarkError("kernel_refused", f"kernel {kernel.name!r} cannot do {case}: {found.reason}")


def _names(case: Case, chosen: Sequence[Declaration], device: str) -> tuple[str, ...]:
    fitting = [kernel.name for kernel in chosen if kernel.refusal(case, device) is None]
    return tuple(sorted(fitting, key=lambda name: (name not in BASELINES, name)))


def _curves(asked: Sequence[Case], chosen: Sequence[Declaration], device: str) -> Iterator[Case]:
    """Give the cases that make each kernel's time a curve over density, without those that are asked for anyway."""
    seen = {(replace(case, kernels=()), name) for case in asked for name in case.kernels}
    bare = dict.fromkeys(replace(case, kernels=(), pattern="", purpose="asked") for case in asked)
    for case, kernel in product(bare, chosen):
        for pattern in kernel.curve:
            point = replace(case, pattern=pattern)
            if (point, kernel.name) in seen or not _fits(point) or kernel.refusal(point, device) is not None:
                continue
            yield replace(point, purpose="curve", kernels=("dense", kernel.name))


def _fits(case: Case) -> bool:
    try:
        _check_fit(case)
    except BenchmarkError:
        return False
    return True
