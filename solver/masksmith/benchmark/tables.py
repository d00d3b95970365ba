"""The conclusions of a report as tables and as a Markdown page. Standard library only."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .answers import Answers
from .cases import Case, labels
from .conclusions import BreakEven, Estimate
from .results import CaseResult, Timing

_SPECIAL = re.compile(r"\||<(?=[A-Za-z/!?])|\\(?=[\\|<])")
"""Characters that end a cell or begin an HTML tag, and backslashes before them.

Such a backslash would escape the backslash that `_escaped` adds.
"""


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        title: Title.
        note: Explanation of the columns.
        head: Names of the columns.
        rows: Cells.
        text_columns: Number of leading columns that hold text and are aligned left; the others are aligned right.
    """

    title: str
    note: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    text_columns: int = 1

    def markdown(self) -> str:
        """Return the table as Markdown, with aligned columns."""
        widths = [max(len(_escaped(row[k])) for row in [self.head, *self.rows]) for k in range(len(self.head))]
        ends = ["-" if k < self.text_columns else ":" for k in range(len(widths))]
        separator = "|" + "|".join("-" * (width + 1) + end for width, end in zip(widths, ends, strict=True)) + "|"
        lines = [self._line(self.head, widths), separator, *(self._line(row, widths) for row in self.rows)]
        return f"## {self.title}\n\n{self.note}\n\n" + "\n".join(lines) + "\n"

    def _line(self, cells: Sequence[str], widths: Sequence[int]) -> str:
        padded = [
            _escaped(cell).ljust(width) if k < self.text_columns else _escaped(cell).rjust(width)
            for k, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        return "| " + " | ".join(padded) + " |"


def one_line(text: str) -> str:
    """Escape line ends and other unprintable characters, since names of layers and messages are untrusted input."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def _escaped(text: str) -> str:
    """Escape a text for a table or a list in Markdown."""
    return _SPECIAL.sub(r"\\\g<0>", one_line(text))


def tables(report: Answers) -> list[Table]:
    """Return tables of the whole model, kernels, layers and break-even densities; a table without rows is left out."""
    candidates = [_model_table(report), _kernel_table(report), _layer_table(report), _break_even_table(report)]
    return [table for table in candidates if table.rows]


def page(report: Answers, title: str) -> str:
    """Return the report as a Markdown page."""
    parts = [f"# {_escaped(title)}\n", *(f"{machine_line(machine, report)}\n" for machine in report.machines)]
    parts.append("## In words\n\n" + "\n".join(f"- {_escaped(line)}" for line in report.conclusions()) + "\n")
    parts += [table.markdown() for table in tables(report)]
    if report.skipped:
        lines = "\n".join(
            f"- `{one_line(name)}`: {_escaped(reason)}" for name, reason in sorted(report.skipped.items())
        )
        parts.append(f"## What cannot run here\n\n{lines}\n")
    if report.failures:
        parts.append("## What failed\n\n" + "\n".join(f"- {_escaped(line)}" for line in report.failures) + "\n")
    return "\n".join(parts)


def machine_line(machine: dict[str, object], report: Answers) -> str:
    """Return a sentence with the machine's name, threads and measured rates, and a sentence with versions of software.

    A GPU has no threads in the sentence, and rates are left out if none were measured.
    """
    name = machine.get("gpu") or f"{machine.get('processor')}, {machine.get('capability')}"
    order = ("torch", "cuda", "triton", "cusparselt", "numba", "numpy", "scipy", "python", "system")
    versions = ", ".join(f"{key} {machine[key]}" for key in order if machine.get(key) is not None)
    threads = f"; {machine['threads']} thread(s) of {machine['cores']} cores" if "threads" in machine else ""
    return f"Measured on {name}{threads}{_rates_text(report.results_of(machine))}. {versions}."


def duration_text(seconds: float) -> str:
    """Format a duration with three significant digits and its unit."""
    for unit, scale in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= 0.9995 * scale:  # With three digits, 0.9995 of a unit is rounded up to 1 of it.
            return f"{seconds / scale:.3g} {unit}"
    return f"{seconds / 1e-6:.3g} us"


def _rates_text(results: Sequence[CaseResult]) -> str:
    """Return "; " with the highest copy rate and the matrix rate of each dtype; an empty text if there are no rates."""
    rates = {
        result.case.dtype: (result.machine["copy_bytes_per_s"], result.machine["matrix_flops_per_s"])
        for result in results
        if "copy_bytes_per_s" in result.machine
    }
    if not rates:
        return ""
    parts = [f"{flops / 1e9:.4g} GFLOP/s in {dtype}" for dtype, (_, flops) in rates.items()]
    copy_rate = max(rate for rate, _ in rates.values())
    return f"; copies {copy_rate / 1e9:.3g} GB/s, multiplies at " + ", ".join(parts)


def case_suffix(case: Case | Estimate | BreakEven, report: Answers) -> str:
    """Return dtype and direction as a suffix, if they differ between the report's cases; else an empty text."""
    has_several = len({(result.case.dtype, result.case.direction) for result in report.results}) > 1
    return f", {case.dtype}, {case.direction}" if has_several else ""


def _model_table(report: Answers) -> Table:
    rows = [
        [
            f"{estimate.pattern}{case_suffix(estimate, report)}",
            _verdict(estimate),
            ", ".join(sorted({name for name in estimate.kernels.values() if name != "dense"})) or "-",
            str(estimate.batch),
            duration_text(estimate.dense_s),
            duration_text(estimate.best_s),
            f"{estimate.speedup:.2f}x",
            f"{estimate.low:.2f}x - {estimate.high:.2f}x",
        ]
        for estimate in report.estimates
    ]
    note = (
        "All layers, each as often as the model has it. For every shape the fastest kernel is taken, and dense where "
        "nothing beats it: so 1.00x means that no kernel pays anywhere. The range is from the 20th and 80th "
        "percentiles of all times. A speed-up above 1x is within noise if it is at most 1.03x, or if its range "
        "includes 1x."
    )
    head = ("pattern", "worth it?", "with", "batch", "dense", "best", "speed-up", "range")
    return Table("Speed-up of the whole model, by pattern", note, head, rows, 3)


def _verdict(estimate: Estimate) -> str:
    if estimate.is_noise:
        return "within noise"
    return "yes" if estimate.speedup > 1.0 else "no"


def _kernel_table(report: Answers) -> Table:
    """Return a table of speed-ups over dense for the whole model, with a row per pattern and kernel."""
    note = (
        "Speed-up over dense of one kernel used for all layers that it supports, and dense elsewhere. Below 1 it is "
        "slower than dense."
    )
    cells = {
        (f"{estimate.pattern}{case_suffix(estimate, report)}", kernel, estimate.batch): str(estimate.gain(kernel))
        for estimate in report.estimates
        for kernel in estimate.by_kernel
    }
    return _by_batch("Each kernel, over the whole model", note, ("pattern", "kernel"), cells)


def _layer_table(report: Answers) -> Table:
    rows, label_of = [], labels(result.case.layer for result in report.results)
    for result in report.results:
        case, dense = result.case, result.of("dense")
        if case.purpose != "asked" or dense is None or dense.timing is None:
            continue
        best, gain = max(result.gains, key=lambda pair: pair[1].value, default=(None, None))
        label = label_of[case.layer]
        label = f"{label} (x{case.layer.count})" if label == case.layer.shape else label
        row = [label, case.pattern, str(case.batch)]
        timings = None if best is None else best.compared_with(dense)
        if best is None or timings is None:
            rows.append([*row[:2], "-", row[2], _spread(dense.timing), "-", "-", "-", "-"])
            continue
        roofline = "-" if best.roofline is None else f"{best.roofline:.0%}"
        size = f"{(best.weight_bytes or 0) / (dense.weight_bytes or 1):.0%}"
        rows.append([*row[:2], best.kernel, row[2], *map(_spread, timings), str(gain), size, roofline])
    note = (
        "The fastest sparse kernel: median, and in parentheses the 20th and 80th percentile. Bytes are those of the "
        "packed weight, relative to dense. The roofline share may exceed 100% where operands stay in a cache."
    )
    head = ("layer", "pattern", "fastest", "batch", "dense", "sparse", "speed-up", "bytes", "roofline")
    return Table("Layer by layer", note, head, rows, 3)


def _spread(timing: Timing) -> str:
    """Format the median, and in parentheses the 20 % and 80 % quantiles."""
    return f"{duration_text(timing.median_s)} ({duration_text(timing.p20_s)} - {duration_text(timing.p80_s)})"


def _break_even_table(report: Answers) -> Table:
    cells: dict[tuple[str, str, int], str] = {}
    label_of = labels(break_even.layer for break_even in report.break_evens)
    families: dict[str, set[str]] = defaultdict(set)
    for break_even in report.break_evens:
        families[break_even.kernel].add(break_even.family)
    for break_even in report.break_evens:
        family = f" ({break_even.family})" if len(families[break_even.kernel]) > 1 else ""
        kernel = f"{break_even.kernel}{family}{case_suffix(break_even, report)}"
        cells[kernel, label_of[break_even.layer], break_even.batch] = str(break_even)
    note = (
        "The density (share of weights kept) below which a kernel beats dense. In parentheses the range, from the "
        '20th and 80th percentiles of all times. "above 50%": the kernel beats dense at every density measured, of '
        'which 50% is the highest; "below 2%": it does not beat dense at 2%, the lowest density measured.'
    )
    return _by_batch("Break-even density", note, ("kernel", "layer"), dict(sorted(cells.items())))


def _by_batch(title: str, note: str, head: tuple[str, str], cells: Mapping[tuple[str, str, int], str]) -> Table:
    """Return a table with a row for each pair of names and a column for each batch."""
    batches = sorted({batch for _, _, batch in cells})
    names = dict.fromkeys(key[:2] for key in cells)
    rows = [[*pair, *(cells.get((*pair, batch), "-") for batch in batches)] for pair in names]
    return Table(title, note, (*head, *(f"batch {batch}" for batch in batches)), rows, 2)
