"""Winners, break-even densities and estimates for whole models, from measurements. Standard library only.

How a break-even is computed: all cases that share a kernel, family of patterns, layer, batch, dtype and direction form
a curve, with a point (density, kernel time / dense time) for each case. Patterns of one family differ in density only,
or are all N:M. If several patterns have one density, the point is that of the slowest, so that below the break-even the
kernel is faster under each of them. The curve is linear between neighbouring points. The break-even is the highest
density at which the curve falls below 1 as the density decreases; if there is no such density, the result is a bound.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from .cases import Case, Layer, labels
from .results import CaseResult, Gain, Measurement, timings_of_one_kind

CurveKey = tuple[str, Layer, int, str, str, str]
"""Kernel, layer, batch, dtype, direction and family of patterns."""
NOISE = 0.03
"""A speed-up of a whole model from 1 to 1 plus this number may be due to noise, so it does not count as faster."""


@dataclass(frozen=True)
class Winner:
    """The fastest sparse kernel of a case, if any was measured.

    Attributes:
        case: The case.
        density: Density of its mask.
        kernel: The fastest kernel that uses the mask; None if none was measured.
        speedup: Speed-up over dense; None if `kernel` is None.
        dense_s: Median seconds of the dense product.
        low, high: Range of `speedup`, from the 20 % and 80 % quantiles of both times; None if `kernel` is None.
    """

    case: Case
    density: float
    kernel: str | None
    speedup: float | None
    dense_s: float
    low: float | None = None
    high: float | None = None

    @property
    def pays(self) -> bool:
        """Whether there is a kernel, and it is faster than dense over the whole range of its speed-up."""
        return self.speedup is not None and self.low is not None and min(self.speedup, self.low) > 1.0


@dataclass(frozen=True)
class BreakEven:
    """The density at which a kernel becomes faster than dense, for one layer, batch, dtype, direction and family.

    Attributes:
        kernel: The kernel.
        layer: The layer.
        batch, dtype, direction: The rest of the case.
        family: The family of patterns: `unstructured`, `N:M`, or a pattern without its density, such as `block 16x16`.
        density: The highest density at which the kernel and dense take the same time, and just below which the kernel
            is faster; None if there is none within the densities measured.
        lowest, highest: Range of densities measured.
        always: Whether the kernel was faster than dense at all densities measured. If this is False and `density` is
            None, the kernel was not faster at the lowest density.
        low, high: Range of `density`, from the 20 % and 80 % quantiles of all times; within the densities measured.
            None if `density` is None.
    """

    kernel: str
    layer: Layer
    batch: int
    dtype: str
    direction: str
    family: str
    density: float | None
    lowest: float
    highest: float
    always: bool
    low: float | None = None
    high: float | None = None

    def __str__(self) -> str:
        if self.density is not None:
            spread = "" if self.low is None or self.high is None else f" ({self.low:.1%} - {self.high:.1%})"
            return f"{self.density:.1%}{spread}"
        return f"above {self.highest:.0%}" if self.always else f"below {self.lowest:.1%}"


@dataclass(frozen=True)
class Estimate:
    """Total time of a model's linear layers; a layer that the model has several times is added several times.

    All times are of graph replays if dense and every sparse kernel of all layers have one, else of eager calls.

    Attributes:
        pattern, batch, dtype, direction: The cases that are summed.
        dense_s: Seconds with dense products for all layers.
        best_s: Seconds with the fastest kernel for each shape, which may be dense.
        kernels: The fastest kernel, by shape; `dense` where no sparse kernel is faster. If several layers have one
            shape, their keys are the shape with name and count: `64x64 (q, x2)`.
        by_kernel: Seconds, by kernel, with this kernel for the layers where it was measured, and dense for the others.
        low, high: Range of `speedup`, from the ranges of all layers.
        least_by_kernel, most_by_kernel: Range of `by_kernel`, from the ranges of all layers.
    """

    pattern: str
    batch: int
    dtype: str
    direction: str
    dense_s: float
    best_s: float
    kernels: dict[str, str]
    by_kernel: dict[str, float]
    low: float = 1.0
    high: float = 1.0
    least_by_kernel: dict[str, float] = field(default_factory=dict)
    most_by_kernel: dict[str, float] = field(default_factory=dict)

    def gain(self, kernel: str) -> Gain:
        """Return the speed-up of one kernel of `by_kernel` over all layers, with its range."""
        times = (self.by_kernel[kernel], self.most_by_kernel[kernel], self.least_by_kernel[kernel])
        return Gain(*(self.dense_s / kernel_s for kernel_s in times))

    @property
    def speedup(self) -> float:
        """Dense time over best time; 1 if no kernel is faster than dense."""
        return self.dense_s / self.best_s

    @property
    def is_noise(self) -> bool:
        """Whether the best choice is faster than dense, but not by more than the noise."""
        return self.speedup > 1.0 and (self.low <= 1.0 or self.speedup <= 1.0 + NOISE)


def winners(results: Iterable[CaseResult]) -> list[Winner]:
    """Return the winner of every requested case with a dense time."""
    return [
        _winner(result, result.dense_s)
        for result in results
        if result.case.purpose == "asked" and result.dense_s is not None
    ]


def _winner(result: CaseResult, dense_s: float) -> Winner:
    if not result.gains:
        return Winner(result.case, result.density, None, None, dense_s)
    measurement, gain = max(result.gains, key=lambda pair: pair[1].value)
    return Winner(result.case, result.density, measurement.kernel, gain.value, dense_s, gain.low, gain.high)


def break_evens(results: Iterable[CaseResult]) -> list[BreakEven]:
    """Return the break-even of each kernel and family of patterns, for each layer, batch, dtype and direction.

    Families that were measured at a single density have no break-even, and are left out.
    """
    points: dict[CurveKey, dict[float, Gain]] = defaultdict(dict)
    for result in results:
        case = result.case
        for measurement, gain in result.gains:
            key = (measurement.kernel, case.layer, case.batch, case.dtype, case.direction, family(case.pattern))
            slowest = min(points[key].get(result.density, gain), gain, key=lambda each: each.value)
            points[key][result.density] = slowest
    return [_break_even(key, curve) for key, curve in points.items() if len(curve) > 1]


def family(pattern: str) -> str:
    """Return the family of a pattern: its string form without the density, which for N:M patterns is in `n:m`."""
    if "%" in pattern:
        return re.sub(r" ?[\d.]+%", "", pattern) or "unstructured"
    return re.sub(r"\d+:\d+", "N:M", re.sub(r"\d+:\d+:\d+", "V:N:M", pattern))


def _break_even(key: CurveKey, gains: dict[float, Gain]) -> BreakEven:
    # Curves of kernel time / dense time: from the medians, and from the ends of the ranges of the speed-ups.
    curve, slowest, fastest = (
        {density: 1.0 / getattr(gain, name) for density, gain in gains.items()} for name in ("value", "low", "high")
    )
    density = crossing(curve)
    low = high = None
    if density is not None:
        # If times do not fall with the density, the crossings of the other curves may be at other pairs of points.
        low, high = min(density, _crossing_or_end(slowest)), max(density, _crossing_or_end(fastest))
    always = all(ratio < 1.0 for ratio in curve.values())
    return BreakEven(*key, density, min(curve), max(curve), always, low, high)


def _crossing_or_end(curve: dict[float, float]) -> float:
    """Return the crossing of a curve.

    Without a crossing, this is the highest density measured if all ratios are below 1, else the lowest.
    """
    density = crossing(curve)
    if density is not None:
        return density
    return max(curve) if all(ratio < 1.0 for ratio in curve.values()) else min(curve)


def crossing(curve: dict[float, float]) -> float | None:
    """Return the highest density at which a ratio of times falls below 1 as the density decreases, or None.

    The ratio is linear between neighbouring points.
    """
    ordered = sorted(curve.items(), reverse=True)
    for (above, slow), (below, fast) in pairwise(ordered):
        if slow >= 1.0 > fast:
            return below + (above - below) * (1.0 - fast) / (slow - fast)
    return None


def estimates(results: Iterable[CaseResult]) -> list[Estimate]:
    """Sum the times of all layers in requested cases with a dense time, by pattern, batch, dtype and direction."""
    groups: dict[tuple[str, int, str, str], list[CaseResult]] = defaultdict(list)
    for result in results:
        case = result.case
        if case.purpose == "asked" and result.dense_s is not None:
            groups[case.pattern, case.batch, case.dtype, case.direction].append(result)
    return [_estimate(key, group) for key, group in groups.items()]


def _estimate(key: tuple[str, int, str, str], results: Sequence[CaseResult]) -> Estimate:
    dense_s = best_s = slowest_s = fastest_s = 0.0
    kernels: dict[str, str] = {}
    label_of = labels(result.case.layer for result in results)
    names = {measurement.kernel for result in results for measurement, _ in result.gains}
    by_kernel, least_by_kernel, most_by_kernel = (dict.fromkeys(sorted(names), 0.0) for _ in range(3))
    timing = timings_of_one_kind(measurement for result in results for measurement in _compared(result))
    for result in results:
        dense, *sparse = _compared(result)
        layers_s = result.case.layer.count * timing(dense).median_s
        gains = {measurement.kernel: Gain.of(timing(dense), timing(measurement)) for measurement in sparse}
        best = max(gains, key=lambda name: gains[name].value, default="dense")
        if best == "dense" or gains[best].value <= 1.0:
            best, gain = "dense", Gain(1.0, 1.0, 1.0)
        else:
            gain = gains[best]
        dense_s += layers_s
        best_s += layers_s / gain.value
        slowest_s += layers_s / gain.low
        fastest_s += layers_s / gain.high
        kernels[label_of[result.case.layer]] = best
        for name in by_kernel:
            gain = gains.get(name, Gain(1.0, 1.0, 1.0))
            by_kernel[name] += layers_s / gain.value
            least_by_kernel[name] += layers_s / gain.high
            most_by_kernel[name] += layers_s / gain.low
    low, high = dense_s / slowest_s, dense_s / fastest_s
    return Estimate(*key, dense_s, best_s, kernels, by_kernel, low, high, least_by_kernel, most_by_kernel)


def _compared(result: CaseResult) -> list[Measurement]:
    """Return the measurements of dense and of the kernels of `gains`."""
    dense = result.of("dense")
    assert dense is not None
    return [dense, *(measurement for measurement, _ in result.gains)]
