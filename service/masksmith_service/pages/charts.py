"""Charts of a benchmark, as coordinates that a template draws: speed-up against sparsity, and bars for each layer."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from masksmith.benchmark import Report, bars, curves

WIDTH, HEIGHT = 480, 240
LEFT, RIGHT, TOP, BOTTOM = 44, 22, 12, 36
COLOURS = 6


@dataclass(frozen=True)
class Mark:
    """A place in the chart with what it says: a point, or a bar down to the line of dense."""

    x: float
    y: float
    says: str
    width: float = 0.0
    height: float = 0.0


@dataclass(frozen=True)
class Series:
    """Marks of one colour."""

    name: str
    colour: int
    marks: Sequence[Mark]

    @property
    def path(self) -> str:
        """The marks joined, as an SVG path."""
        return "M" + "L".join(f"{mark.x:.1f} {mark.y:.1f}" for mark in self.marks)


@dataclass(frozen=True)
class Chart:
    """A chart of speed-ups on a logarithmic axis.

    Attributes:
        title: What it shows.
        across: What lies along the horizontal axis.
        series: What is drawn.
        down: Labels of the vertical axis with their heights.
        along: Labels of the horizontal axis with their places.
        dense: Height at which a kernel is as fast as dense.
        is_bars: Bars instead of lines.
    """

    title: str
    across: str
    series: Sequence[Series]
    down: Sequence[tuple[str, float]]
    along: Sequence[tuple[str, float]]
    dense: float
    is_bars: bool = False
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    right: int = WIDTH - RIGHT
    bottom: int = HEIGHT - BOTTOM

    @property
    def words(self) -> str:
        """All marks in words, for those who do not see them."""
        return "; ".join(mark.says for series in self.series for mark in series.marks)


def draw(report: Report) -> list[Chart]:
    """Draw a report: for every batch its curves, where more than one density was measured, and its bars."""
    charts = []
    for batch in sorted({result.case.batch for result in report.results}):
        lines = {kernel: points for kernel, points in curves(report, batch).items() if len(points) > 1}
        if lines:
            charts.append(_lines(batch, lines))
        if gains := bars(report, batch):
            charts.append(_bars(batch, gains))
    return charts


def _lines(batch: int, kernels: Mapping[str, Sequence[tuple[float, float]]]) -> Chart:
    axis = _Axis(gain for points in kernels.values() for _, gain in points)
    found = [
        Series(
            kernel, number % COLOURS,
            [
                Mark(_across(1 - kept), axis.y(gain), f"{kernel}: {gain:.2f}x, {100 * (1 - kept):.1f} % dropped")
                for kept, gain in points
            ],
        )
        for number, (kernel, points) in enumerate(kernels.items())
    ]  # fmt: skip
    along = [(f"{percent} %", _across(percent / 100)) for percent in (0, 25, 50, 75, 100)]
    return Chart(f"Batch {batch}: all layers", "weights dropped", found, axis.labels, along, axis.y(1.0))


def _bars(batch: int, layers: Mapping[str, Mapping[str, float]]) -> Chart:
    axis = _Axis(gain for gains in layers.values() for gain in gains.values())
    patterns = list(dict.fromkeys(pattern for gains in layers.values() for pattern in gains))
    room = (WIDTH - LEFT - RIGHT) / len(layers)
    wide = 0.8 * room / len(patterns)
    found = [
        Series(
            pattern, number % COLOURS,
            [
                axis.bar(LEFT + place * room + 0.1 * room + number * wide, wide, gains[pattern], f"{shape}, {pattern}")
                for place, (shape, gains) in enumerate(layers.items())
                if pattern in gains
            ],
        )
        for number, pattern in enumerate(patterns)
    ]  # fmt: skip
    along = [(shape, LEFT + (place + 0.5) * room) for place, shape in enumerate(layers)]
    return Chart(
        f"Batch {batch}: the fastest kernel of each layer",
        "layer",
        found,
        axis.labels,
        along,
        axis.y(1.0),
        is_bars=True,
    )


class _Axis:
    """Powers of two that hold all gains, and dense."""

    def __init__(self, gains: Iterable[float]) -> None:
        powers = [0.0, *(math.log2(gain) for gain in gains)]
        self._least, self._most = math.floor(min(powers)), max(math.ceil(max(powers)), math.floor(min(powers)) + 1)

    @property
    def labels(self) -> list[tuple[str, float]]:
        step = -(-(self._most - self._least) // 6)
        powers = [power for power in range(self._least, self._most + 1) if power % step == 0]
        return [(f"{2.0**power:g}x", self.y(2.0**power)) for power in powers]

    def y(self, gain: float) -> float:
        share = (math.log2(gain) - self._least) / (self._most - self._least)
        return HEIGHT - BOTTOM - share * (HEIGHT - BOTTOM - TOP)

    def bar(self, x: float, width: float, gain: float, what: str) -> Mark:
        top, bottom = sorted((self.y(gain), self.y(1.0)))
        return Mark(x, top, f"{what}: {gain:.2f}x", width, max(1.0, bottom - top))


def _across(sparsity: float) -> float:
    return LEFT + sparsity * (WIDTH - LEFT - RIGHT)
