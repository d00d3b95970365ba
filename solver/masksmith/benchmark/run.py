"""`benchmark`: measures sparse kernels against dense ones on a device of this machine."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

import masksmith
from masksmith._numbers import is_whole_number
from masksmith.patterns import NM, Pattern
from masksmith.patterns.matching import describe_unknown_names

from .cases import Case, Direction, Layer, read_shapes
from .errors import BenchmarkError
from .kernel import Kernel
from .method import ROUNDS, Bench
from .models import MODELS
from .operands import check_mask
from .planning import Request, plan
from .registry import all_kernels, check_runnable, declarations
from .report import Report
from .results import CaseResult

DEVICE_NAME = re.compile(r"cpu|cuda(:(?P<number>0|[1-9][0-9]*))?")
OnCase = Callable[[CaseResult, int, int], None]


def benchmark(
    layers: str | Iterable[Layer | str],
    patterns: str | Pattern | Iterable[str | Pattern],
    *,
    batches: Sequence[int] = (1, 32, 256),
    dtypes: Sequence[str] = ("float32",),
    directions: Sequence[Direction] = ("forward",),
    kernels: Sequence[str] | None = None,
    device: str = "cpu",
    masks: Mapping[str, Any] | None = None,
    curves: bool = True,
    rounds: int = ROUNDS,
    threads: int = 1,
    seed: int = 0,
    on_case: OnCase | None = None,
    on_compilation: Callable[[], None] | None = None,
    registry: Mapping[str, Kernel] | None = None,
) -> Report:
    """Measure sparse kernels against dense ones.

    Args:
        layers: A well-known model's name (`MODELS`), or layers, or shapes such as `"1536x384*6"` (out x in, times 6).
        patterns: Patterns of the masks; those of n:m groups must have `axis="in"`.
        batches: Numbers of rows of the activations.
        dtypes: `float32`, `float16`, `bfloat16`, `float64`.
        directions: `forward` (`X W^T`), `backward` (`dY W`).
        kernels: Names of kernels; None selects all that support the cases, and skips those that cannot run here.
        device: `cpu`, or a CUDA device.
        masks: Masks to use instead of the best ones for random weights, by layer name.
        curves: Whether to measure kernels over a range of densities, too, for their break-even.
        rounds: Number of rounds, in each of which every kernel is timed.
        threads: Number of threads of CPU kernels.
        seed: Seed of weights and activations.
        on_case: Called with each result, the number of cases done, and the total.
        on_compilation: Called when the first kernel of this process has to be compiled; see `ms.warm_up`.
        registry: Kernels by name, to use instead of those installed.

    Raises:
        BenchmarkError: If an argument is invalid, or a named kernel cannot run; raised before anything runs.
    """
    available_kernels = all_kernels() if registry is None else registry
    masks = masks or {}
    _check_at_least_one(rounds=rounds, threads=threads)
    texts = [_pattern_text(pattern) for pattern in ([patterns] if isinstance(patterns, (str, Pattern)) else patterns)]
    request = Request(_layers(layers), texts, batches, dtypes, directions, kernels, device, curves)
    cases = plan(request, declarations(available_kernels))
    check_device(device)
    check_runnable(kernels if kernels is None else list(kernels), available_kernels, device)
    _check_masks(masks, cases)
    with _calling(on_compilation):
        results = _measure_all(Bench(available_kernels, device, rounds, threads, seed, masks), cases, on_case)
    settings = {"rounds": rounds, "threads": threads, "seed": seed, "device": device, "version": masksmith.__version__}
    return Report(results, settings)


def _calling(on_compilation: Callable[[], None] | None) -> AbstractContextManager[None]:
    if on_compilation is None:
        return nullcontext()
    from masksmith.kernels.jit import on_first_compilation

    return on_first_compilation(on_compilation)


def _measure_all(bench: Bench, cases: Sequence[Case], on_case: OnCase | None) -> list[CaseResult]:
    results = []
    for number, case in enumerate(cases, 1):
        results.append(attempt(bench, case))
        if on_case is not None:
            on_case(results[-1], number, len(cases))
    return results


def attempt(bench: Bench, case: Case) -> CaseResult:
    """Measure a case; if it fails as a whole, return a result with the error."""
    try:
        return bench.measure(case)
    except Exception as error:  # noqa: BLE001 - other cases are still measured
        return CaseResult(case, case.rule.density, [], {}, {}, f"{type(error).__name__}: {error}"[:500])


def check_device(device: str) -> None:
    """Check that torch sees a device.

    Raises:
        BenchmarkError: If torch does not see the device, or its name is malformed.
    """
    import torch

    match = DEVICE_NAME.fullmatch(device)
    if match is None:
        raise BenchmarkError("invalid_benchmark", f"device {device!r}: use cpu, cuda or cuda:N")
    if device != "cpu" and int(match["number"] or 0) >= torch.cuda.device_count():
        raise BenchmarkError(
            "invalid_benchmark", f"device {device!r}: this torch sees {torch.cuda.device_count()} GPU(s)"
        )


def _check_at_least_one(**counts: int) -> None:
    for name, count in counts.items():
        if not is_whole_number(count):
            raise BenchmarkError("invalid_benchmark", f"{name} {count!r}: must be a whole number")
        if count < 1:
            raise BenchmarkError("invalid_benchmark", f"{name} {count}: must be at least 1")


def _pattern_text(pattern: str | Pattern) -> str:
    """Return a pattern as text. The text omits the axis of n:m groups, so every axis except `in` is refused."""
    if isinstance(pattern, NM) and pattern.axis != "in":
        message = f"pattern {str(pattern)!r} along axis {pattern.axis!r}: only n:m along 'in' can be measured"
        raise BenchmarkError("invalid_benchmark", message)
    return str(pattern)


def _layers(layers: str | Iterable[Layer | str]) -> list[Layer]:
    if isinstance(layers, str):
        if layers in MODELS:
            return MODELS[layers]
        layers = [layers]
    try:
        return [layer if isinstance(layer, Layer) else read_shapes([layer])[0] for layer in layers]
    except ValueError as error:
        raise BenchmarkError("invalid_benchmark", f"{error}; or name a model: {', '.join(MODELS)}") from None


def _check_masks(masks: Mapping[str, Any], cases: Sequence[Case]) -> None:
    layer_names = dict.fromkeys(case.layer.name for case in cases)
    unknown = describe_unknown_names(masks, layer_names)
    if unknown is not None:
        raise BenchmarkError("invalid_mask", f"masks are given for layers that are not measured: {unknown}")
    # Only the cases that the user requested use these masks. The batch does not matter for a mask, so cases that differ
    # in it alone are checked once.
    for case in {replace(case, batch=1) for case in cases if case.purpose == "asked"}:
        if case.layer.name in masks:
            check_mask(masks[case.layer.name], case)
