"""Charts of the blocks, as SVG: each block has its place on the horizontal axis."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from html import escape

from masksmith_wire.quantities import duration_text

WIDTH, HEIGHT = 800, 260
LEFT, RIGHT, TOP, BOTTOM = 60, 16, 28, 30
"""Margins around the plotted area."""
LINE_CLASSES = ("first", "second")
"""CSS classes of the lines, in their order; a chart has no more lines than there are classes."""
LEGEND_WIDTH = 220
"""Horizontal distance between the beginnings of two legends; each line has a legend."""
MAX_LABELS = 12
"""Maximum number of labels on the axis of the blocks."""


def line_chart(names: Sequence[str], lines: Mapping[str, Sequence[float]]) -> str:
    """Return a chart of errors of the blocks, as lines; the vertical axis is in percent and starts at 0.

    Args:
        names: Names of the blocks.
        lines: For each line, by its name: a share for each block (1.0 is 100 %). Two lines at most.
    """
    axis_max = _nice_axis_max(max((value for line in lines.values() for value in line), default=0.0))
    parts = [_axes(names, axis_max, lambda value: f"{value:.3g} %", 100.0)]
    for number, (label, values) in enumerate(lines.items()):
        css_class, legend_x = LINE_CLASSES[number], LEFT + LEGEND_WIDTH * number
        points = [(_x(index, len(names)), _y(value, axis_max)) for index, value in enumerate(values)]
        path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
        parts.append(f'<path class="{css_class}" stroke-width="2" d="{path}"/>')
        for (x, y), name, value in zip(points, names, values, strict=True):
            title = f"<title>{escape(name)}, {escape(label)}: {value:.3%}</title>"
            parts.append(f'<circle class="{css_class}" cx="{x:.1f}" cy="{y:.1f}" r="3">{title}</circle>')
        parts.append(f'<rect class="{css_class}" x="{legend_x}" y="6" width="10" height="10"/>')
        parts.append(f'<text x="{legend_x + 16}" y="15">{escape(label)}</text>')
    return _svg("errors of blocks", parts)


def bar_chart(names: Sequence[str], values: Sequence[float]) -> str:
    """Return a chart of the time that each block took, in seconds, with one bar for each block."""
    axis_max = _nice_axis_max(max(values, default=0.0))
    parts = [_axes(names, axis_max, lambda value: f"{value:.3g} s", 1.0)]
    width = 0.7 * (WIDTH - LEFT - RIGHT) / max(1, len(names))
    for index, (name, value) in enumerate(zip(names, values, strict=True)):
        x, y = _x(index, len(names)) - width / 2, _y(value, axis_max)
        title = f"<title>{escape(name)}: {duration_text(value)}</title>"
        height = HEIGHT - BOTTOM - y
        parts.append(
            f'<rect class="second" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}">{title}</rect>'
        )
    return _svg("seconds of blocks", parts)


def _svg(label: str, parts: Sequence[str]) -> str:
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">{"".join(parts)}</svg>'


def _axes(names: Sequence[str], axis_max: float, value_text: Callable[[float], str], scale: float) -> str:
    """Return grid lines for values up to `axis_max`, each with the text of `scale * value`, and labels of blocks."""
    parts = []
    for step in range(5):
        value = axis_max * step / 4
        y = _y(value, axis_max)
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="var(--grid)"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{value_text(scale * value)}</text>')
    label_step = math.ceil(len(names) / MAX_LABELS) or 1
    for index in range(0, len(names), label_step):
        number = escape(names[index].rpartition(".")[2])  # 3 of model.layers.3
        parts.append(f'<text x="{_x(index, len(names)):.1f}" y="{HEIGHT - 10}" text-anchor="middle">{number}</text>')
    return "".join(parts)


def _x(index: int, count: int) -> float:
    return LEFT + (index + 0.5) * (WIDTH - LEFT - RIGHT) / max(1, count)


def _y(value: float, axis_max: float) -> float:
    return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * value / axis_max


def _nice_axis_max(value: float) -> float:
    """Return the least number `c * 10^k`, with c in {1, 2, 4, 8}, that is not below `value`.

    1 for infinity and for numbers near 0, which have no such power of ten in float64.
    """
    if not 1e-300 < value < math.inf:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    # The tolerance allows for the rounding of `power`.
    return next(step * power for step in (1, 2, 4, 8, 10) if value <= step * power * (1 + 1e-9))
