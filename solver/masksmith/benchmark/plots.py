"""Plots of a report, for each batch: curves of the kernels' speed-ups over sparsity, and bars for each layer shape."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from .cases import labels
from .conclusions import family
from .report import Report
from .results import Gain, Measurement, timings_of_one_kind
from .tables import case_suffix

Curves = dict[str, list[tuple[float, float]]]
"""Points (density, speed-up), by the label of the curve.

The label is the name of the kernel. It also has the family if the kernel has patterns of several families, since points
of different families are not comparable; and dtype and direction if the report has several.
"""


class _LayerTimes(NamedTuple):
    """Times of all layers of one shape, with one kernel and one pattern.

    Attributes:
        shape: Rows and columns of the layers.
        density: Share of entries that the mask keeps.
        layer_count: Number of these layers.
        dense: Measurement of the dense product.
        sparse: Measurement of the kernel.
    """

    shape: tuple[int, int]
    density: float
    layer_count: int
    dense: Measurement
    sparse: Measurement


def draw(report: Report, target: Path | BinaryIO, kind: str | None = None) -> None:
    """Write one picture with all plots, in the format `kind` (png, svg, pdf).

    The default is the format of the target's suffix; for a file object, which has none, it is png.

    Raises:
        ModuleNotFoundError: If matplotlib is not installed; the message names the extra.
    """
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("pictures need matplotlib: pip install 'masksmith[plot]'", name=error.name) from None
    batches = sorted({result.case.batch for result in report.results})
    figure = Figure(figsize=(4.2 * len(batches), 8), layout="constrained")
    axes = figure.subplots(2, len(batches), squeeze=False, sharey="row")
    for column, batch in enumerate(batches):
        _draw_curves(axes[0][column], curves(report, batch), curve_bands(report, batch), batch)
        _draw_bars(axes[1][column], bars(report, batch), batch)
    axes[0][0].set_ylabel("speed-up over dense, all layers")
    axes[1][0].set_ylabel("speed-up of the fastest kernel")
    handles = {label: line for axis in axes[0] for line, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    axes[0][-1].legend(handles.values(), handles.keys(), fontsize="small")
    axes[1][0].legend(fontsize="small", loc="upper left")
    figure.savefig(target, dpi=110, format=kind)


def curves(report: Report, batch: int) -> Curves:
    """Return the points of each curve: for each pattern, its density and the speed-up over all layers; densest first.

    A point is left out if its kernel and pattern were measured for fewer shapes than another kernel or pattern.
    """
    return {label: [(density, gain.value) for density, gain in points] for label, points in _points(report, batch)}


def curve_bands(report: Report, batch: int) -> dict[str, list[tuple[float, float, float]]]:
    """Return (density, low, high) for each point of `curves`, in the same order: the range of its speed-up."""
    return {
        label: [(density, gain.low, gain.high) for density, gain in points] for label, points in _points(report, batch)
    }


def _points(report: Report, batch: int) -> list[tuple[str, list[tuple[float, Gain]]]]:
    """Return labels in alphabetical order, each with the points of its curve as in `curves`, but with ranges."""
    families = _families(report)
    by_label_and_pattern: dict[tuple[str, str], list[_LayerTimes]] = defaultdict(list)
    for result in report.results:
        case, dense = result.case, result.of("dense")
        if case.batch != batch or dense is None:
            continue
        shape, count = (case.layer.rows, case.layer.cols), case.layer.count
        for measurement, _ in result.gains:
            kernel = measurement.kernel
            family_text = f" ({family(case.pattern)})" if len(families[kernel]) > 1 else ""
            label = f"{kernel}{family_text}{case_suffix(case, report)}"
            by_label_and_pattern[label, case.pattern].append(
                _LayerTimes(shape, result.density, count, dense, measurement)
            )
    shape_count = max((_shape_count(layers) for layers in by_label_and_pattern.values()), default=0)
    points: dict[str, list[tuple[float, Gain]]] = defaultdict(list)
    for (label, _), layers in by_label_and_pattern.items():
        if _shape_count(layers) == shape_count:
            points[label].append((sum(layer.density for layer in layers) / len(layers), _total_gain(layers)))
    for curve in points.values():
        curve.sort(key=lambda point: (point[0], point[1].value), reverse=True)
    return sorted(points.items())


def _families(report: Report) -> dict[str, set[str]]:
    """Return the families of the patterns under which each kernel was measured."""
    families: dict[str, set[str]] = defaultdict(set)
    for result in report.results:
        for measurement, _ in result.gains:
            families[measurement.kernel].add(family(result.case.pattern))
    return families


def _total_gain(layers: list[_LayerTimes]) -> Gain:
    """Return the speed-up over all layers, and its range."""
    timing = timings_of_one_kind(measurement for layer in layers for measurement in (layer.dense, layer.sparse))
    times = [
        (layer.layer_count * timing(layer.dense).median_s, Gain.of(timing(layer.dense), timing(layer.sparse)))
        for layer in layers
    ]
    dense_s = sum(layers_s for layers_s, _ in times)
    value, low, high = (
        dense_s / sum(layers_s / getattr(gain, name) for layers_s, gain in times) for name in ("value", "low", "high")
    )
    return Gain(value, low, high)


def _shape_count(layers: list[_LayerTimes]) -> int:
    return len({layer.shape for layer in layers})


def bars(report: Report, batch: int) -> dict[str, dict[str, float]]:
    """Return the speed-up of the fastest sparse kernel, by label of the layer, as `labels` returns it, and by pattern.

    If the report has several dtypes or directions, the pattern's label includes them. Patterns for which no sparse
    kernel was measured are absent.
    """
    speedups: dict[str, dict[str, float]] = defaultdict(dict)
    label_of = labels(winner.case.layer for winner in report.winners)
    for winner in report.winners:
        if winner.case.batch == batch and winner.speedup is not None:
            pattern = f"{winner.case.pattern}{case_suffix(winner.case, report)}"
            speedups[label_of[winner.case.layer]][pattern] = winner.speedup
    return speedups


def _draw_curves(axis: Any, lines: Curves, bands: dict[str, list[tuple[float, float, float]]], batch: int) -> None:
    for label, points in lines.items():
        sparsities = [100 * (1 - density) for density, _ in points]
        (line,) = axis.plot(sparsities, [gain for _, gain in points], "o-", ms=4, label=label)
        lows, highs = [low for _, low, _ in bands[label]], [high for _, _, high in bands[label]]
        axis.fill_between(sparsities, lows, highs, color=line.get_color(), alpha=0.15, linewidth=0)
    _finish_axis(axis, f"batch {batch}")
    axis.set_xlabel("sparsity, % of weights dropped")


def _draw_bars(axis: Any, speedups: dict[str, dict[str, float]], batch: int) -> None:
    patterns = list(dict.fromkeys(pattern for by_pattern in speedups.values() for pattern in by_pattern))
    width = 0.8 / max(1, len(patterns))
    for k, pattern in enumerate(patterns):
        centers = [position + (k + 0.5) * width - 0.4 for position in range(len(speedups))]
        axis.bar(centers, [by_pattern.get(pattern, 0.0) for by_pattern in speedups.values()], width, label=pattern)
    axis.set_xticks(range(len(speedups)), list(speedups))
    _finish_axis(axis, f"batch {batch}")


def _finish_axis(axis: Any, title: str) -> None:
    axis.axhline(1.0, color="black", lw=0.8)
    axis.set_yscale("log", base=2)
    axis.yaxis.set_major_formatter("{x:g}x")
    axis.set_title(title)
    axis.grid(alpha=0.3)
