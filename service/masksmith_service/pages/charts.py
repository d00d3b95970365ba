"""Computes the charts of a benchmark report: speed-up against sparsity, and bars for each layer."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from masksmith.benchmark import Report, bars, curve_bands, curves

WIDTH, HEIGHT = 480, 240
LEFT, RIGHT, TOP, BOTTOM = 60, 22, 12, 36
"""Margins between the edges of the chart and its axes."""
COLOURS = 6
"""Number of colours in the style sheet: its classes `c0` to `c5`."""


@dataclass(frozen=True)
class Mark:
    """A labelled point of a chart, or a bar from the speed-up to the baseline of 1x.

    Attributes:
        x, y: Coordinates of the point, or of the bar's upper left corner.
        label: Text of the mark.
        width, height: Size of the bar; 0 for a point.
    """

    x: float
    y: float
    label: str
    width: float = 0.0
    height: float = 0.0


@dataclass(frozen=True)
class Series:
    """Marks of one colour.

    Attributes:
        name: Name in the legend.
        colour: Number of the colour, less than `COLOURS`.
        marks: The marks, from left to right.
        band: The area between the lower and the upper limits of the speed-ups, as an SVG path; empty for bars.
    """

    name: str
    colour: int
    marks: Sequence[Mark]
    band: str = ""

    @property
    def path(self) -> str:
        """The line through points, as an SVG path; not used for bars."""
        return "M" + "L".join(f"{mark.x:.1f} {mark.y:.1f}" for mark in self.marks)


@dataclass(frozen=True)
class Chart:
    """A chart of speed-ups on a logarithmic axis.

    Attributes:
        title: Title of the chart.
        x_title: Title of the horizontal axis.
        series: The data.
        y_labels: Labels of the vertical axis, with their y coordinates.
        x_labels: Labels of the horizontal axis, with their x coordinates.
        baseline: y coordinate of the speed-up 1x.
        is_bars: Whether the marks are bars; otherwise they are points joined by a line.
        width, height: Size of the chart.
        left, right: x coordinates of the ends of the horizontal axis.
        bottom: y coordinate of the horizontal axis.
    """

    title: str
    x_title: str
    series: Sequence[Series]
    y_labels: Sequence[tuple[str, float]]
    x_labels: Sequence[tuple[str, float]]
    baseline: float
    is_bars: bool = False
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    right: int = WIDTH - RIGHT
    bottom: int = HEIGHT - BOTTOM

    @property
    def description(self) -> str:
        """Text of all marks, for screen readers."""
        return "; ".join(mark.label for series in self.series for mark in series.marks)


def compute_charts(report: Report) -> list[Chart]:
    """Compute a report's charts: for every batch size, curves and bars, each left out if it would be empty.

    A curve is drawn for each kernel that was measured at more than one density.
    """
    charts = []
    for batch in sorted({result.case.batch for result in report.results}):
        lines = {kernel: points for kernel, points in curves(report, batch).items() if len(points) > 1}
        if lines:
            charts.append(_lines(batch, lines, curve_bands(report, batch)))
        if gains := bars(report, batch):
            charts.append(_bars(batch, gains))
    return charts


def _lines(
    batch: int,
    lines: Mapping[str, Sequence[tuple[float, float]]],
    bands: Mapping[str, Sequence[tuple[float, float, float]]],
) -> Chart:
    """Compute the chart of curves.

    Args:
        batch: Batch size.
        lines: By name of the kernel, points (density, speed-up).
        bands: By name of the kernel, points (density, low, high); `low` and `high` are the limits of the speed-up.
    """
    axis = _Axis(gain for kernel in lines for _, *limits in bands[kernel] for gain in limits)
    series = [
        Series(
            kernel, number % COLOURS,
            [
                Mark(_x(1 - density), axis.y(gain), f"{kernel}: {gain:.2f}x, {100 * (1 - density):.1f} % dropped")
                for density, gain in points
            ],
            _band(bands[kernel], axis),
        )
        for number, (kernel, points) in enumerate(lines.items())
    ]  # fmt: skip
    x_labels = [(f"{percent} %", _x(percent / 100)) for percent in (0, 25, 50, 75, 100)]
    return Chart(f"Batch {batch}: all layers", "weights dropped", series, axis.labels, x_labels, axis.y(1.0))


def _band(points: Sequence[tuple[float, float, float]], axis: _Axis) -> str:
    upper_line = [(_x(1 - density), axis.y(high)) for density, _, high in points]
    lower_line = [(_x(1 - density), axis.y(low)) for density, low, _ in reversed(points)]
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in upper_line + lower_line) + "Z"


def _bars(batch: int, layers: Mapping[str, Mapping[str, float]]) -> Chart:
    """Compute the chart of bars; `layers` has, by layer and pattern, the speed-up (gain) of the fastest kernel."""
    axis = _Axis(gain for gains in layers.values() for gain in gains.values())
    patterns = list(dict.fromkeys(pattern for gains in layers.values() for pattern in gains))
    group_width = (WIDTH - LEFT - RIGHT) / len(layers)
    bar_width = 0.8 * group_width / len(patterns)

    def bar(index: int, layer: str, number: int) -> Mark:
        """Compute the bar of the layer with this index under the pattern with this number."""
        x = LEFT + (index + 0.1) * group_width + number * bar_width
        return axis.bar(x, bar_width, layers[layer][patterns[number]], f"{layer}, {patterns[number]}")

    series = []
    for number, pattern in enumerate(patterns):
        marks = [bar(index, layer, number) for index, layer in enumerate(layers) if pattern in layers[layer]]
        series.append(Series(pattern, number % COLOURS, marks))
    x_labels = [(layer, LEFT + (index + 0.5) * group_width) for index, layer in enumerate(layers)]
    return Chart(
        f"Batch {batch}: the fastest kernel of each layer",
        "layer",
        series,
        axis.labels,
        x_labels,
        axis.y(1.0),
        is_bars=True,
    )


class _Axis:
    """Logarithmic axis of gains, which are speed-ups over the dense kernel; the limits are powers of two.

    The limits include all gains and the baseline of 1x.
    """

    def __init__(self, gains: Iterable[float]) -> None:
        powers = [0.0, *(math.log2(gain) for gain in gains)]
        self._min_power, self._max_power = (
            math.floor(min(powers)),
            max(math.ceil(max(powers)), math.floor(min(powers)) + 1),
        )

    @property
    def labels(self) -> list[tuple[str, float]]:
        """Powers of two at equal distances, at most seven, each with its y coordinate."""
        step = -(-(self._max_power - self._min_power) // 6)
        powers = [power for power in range(self._min_power, self._max_power + 1) if power % step == 0]
        return [(_gain_label(2.0**power), self.y(2.0**power)) for power in powers]

    def y(self, gain: float) -> float:
        share = (math.log2(gain) - self._min_power) / (self._max_power - self._min_power)
        return HEIGHT - BOTTOM - share * (HEIGHT - BOTTOM - TOP)

    def bar(self, x: float, width: float, gain: float, name: str) -> Mark:
        top, bottom = sorted((self.y(gain), self.y(1.0)))
        return Mark(x, top, f"{name}: {gain:.2f}x", width, max(1.0, bottom - top))


def _x(sparsity: float) -> float:
    return LEFT + sparsity * (WIDTH - LEFT - RIGHT)


def _gain_label(gain: float) -> str:
    """Return a speed-up as text that fits into the left margin."""
    digits = 7 if gain >= 1.0 else 3 if gain >= 0.001 else 2
    return f"{gain:.{digits}g}x"
