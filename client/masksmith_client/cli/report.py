"""Print the report of a solve, as a table or as JSON: one row per tensor, and totals; and a table of measures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from masksmith.layouts import BY_CHOICE
from masksmith_wire.documents import Skipped, TensorReport
from masksmith_wire.measures import SpectrumReport, UpdateReport
from masksmith_wire.quantities import count_text
from masksmith_wire.totals import total

from .console import gap_text, percent, print_json, print_line, print_note, show_table, time_text

FORMATS = {"bitmask": "bitmask", "csr": "csr", "bsr": "bsr", "two_four": "2:4"}
"""Columns of storage formats, by the names of the formats."""
HYBRID_FORMAT = {"hybrid": "hybrid"}
"""The column of a format that only hybrid patterns have."""
MEMBERS = ("job", "pattern", "solver", "budget", "budget_gap", "output", "weights")
"""Attributes of a report that its JSON document contains unchanged."""


@dataclass(frozen=True, slots=True)
class SolveReport:
    """Results of a solve, local or by a service.

    Attributes:
        pattern, solver, budget: As requested.
        tensors: One report per tensor to mask, with or without success.
        skipped: Tensors that stay dense, with the reason.
        output, weights: Paths of the masks file and of the updated weights; None if not written.
        wall_s: Duration in seconds.
        job: The job's id; None for a local solve.
        budget_gap: Gap of the division of the budget between the tensors; None without a budget.
        notes: Notes on the checkpoint, for the user.
    """

    pattern: str
    solver: str
    tensors: Sequence[TensorReport]
    skipped: Sequence[Skipped]
    output: str | None
    wall_s: float
    job: str | None = None
    budget: str | None = None
    budget_gap: float | None = None
    weights: str | None = None
    notes: Sequence[str] = ()

    @property
    def failures(self) -> list[TensorReport]:
        """Reports of the tensors with an error."""
        return [report for report in self.tensors if report.error is not None]

    def document(self) -> dict[str, Any]:
        """Return the JSON document."""
        totals = total(self.tensors)
        return {
            **{name: getattr(self, name) for name in MEMBERS},
            "tensors": [report.model_dump(mode="json") for report in self.tensors],
            "skipped": [skipped.model_dump(mode="json") for skipped in self.skipped],
            "notes": list(self.notes),
            "total": {
                "tensors": totals.solved_count,
                "failed": totals.failed_count,
                "retained": totals.retained,
                "gap": totals.gap,
                "density": totals.density,
                "seconds": self.wall_s,
            },
        }

    def show(self, *, as_json: bool) -> None:
        """Print the report."""
        if as_json:
            return print_json(self.document())
        has_updates = any(report.update for report in self.tensors)
        has_patterns = any(report.pattern for report in self.tensors)
        pattern_column = ("pattern",) if has_patterns else ()
        update_columns = UPDATE_COLUMNS if has_updates else ()
        show_table(
            ("tensor", *pattern_column, "status", "shape", "kept", "retained", "gap", "time", *update_columns),
            [_row(report, has_patterns=has_patterns, has_updates=has_updates) for report in self.tensors],
            left_aligned=2 + len(pattern_column),
        )
        for report in self.failures:
            assert report.error is not None
            print_note(f"{report.name}: {report.error.message} ({report.error.code})")
        for text in self.notes:
            print_note(f"masksmith: {text}")
        # Tensors that the user left out by `layers` or `exclude` are not listed.
        names = [skipped.name for skipped in self.skipped if skipped.reason not in BY_CHOICE]
        if names:
            first_names = ", ".join([*names[:4], "..."] if len(names) > 4 else names)
            print_line(f"skipped {count_text(len(names))}: {first_names} (reasons: --json)")
        print_line(self._summary())
        return None

    def _summary(self) -> str:
        totals = total(self.tensors)
        line = (
            f"{count_text(totals.solved_count)} tensor(s), {self.pattern}: {percent(totals.density)} of entries keep "
            f"{percent(totals.retained)} of the score, gap {gap_text(totals.gap)}, {time_text(self.wall_s)}"
        )
        if self.budget is not None:
            line += f" (budget {self.budget} distributed with gap {gap_text(self.budget_gap)})"
        return line + "".join(f" -> {path}" for path in (self.output, self.weights) if path)


UPDATE_COLUMNS = ("output error", "gain")


def update_cells(update: UpdateReport | None) -> tuple[str, str]:
    """Return the relative error of a weight's output after an update, and the factor by which the update reduced it.

    Both are texts; empty without an update. The factor is empty, too, if no error is left.
    """
    if update is None:
        return "", ""
    error = percent(update.error / update.energy if update.energy else 0.0)
    return error, f"{update.masked_error / update.error:.2f}x" if update.error else ""


def _row(report: TensorReport, *, has_patterns: bool, has_updates: bool) -> tuple[str, ...]:
    return (
        report.name,
        *((report.pattern or "-",) if has_patterns else ()),
        report.status or report.state.value,
        "x".join(map(str, report.shape)),
        percent(report.density),
        percent(report.retained),
        gap_text(report.gap),
        time_text(report.solve_s),
        *(update_cells(report.update) if has_updates else ()),
    )


def show_measures(tensors: Sequence[TensorReport]) -> None:
    """Print a table of measures, one row per tensor with a mask; storage as a share of the dense weight's bytes."""
    masked = [tensor for tensor in tensors if tensor.fill is not None]
    has_changes, has_spectra = any(tensor.change for tensor in masked), any(tensor.spectrum for tensor in masked)
    has_hybrid = any("hybrid" in (tensor.storage_bytes or {}) for tensor in masked)
    formats = FORMATS | (HYBRID_FORMAT if has_hybrid else {})
    columns = ["tensor", "fill", *formats.values(), "mask bits"]
    columns += ["SAD", "flips"] if has_changes else []
    columns += ["singular values"] if has_spectra else []
    print_line()
    show_table(columns, [_measures_row(tensor, list(formats), has_changes, has_spectra) for tensor in masked])


def _measures_row(tensor: TensorReport, formats: Sequence[str], has_changes: bool, has_spectra: bool) -> list[str]:
    diversity, change = tensor.diversity, tensor.change
    row = [tensor.name, percent(tensor.fill), *(percent(_storage_share(tensor, name)) for name in formats)]
    row.append("-" if diversity is None else f"{diversity.bits_per_weight:.3f}")
    if has_changes:
        row += ["-", "-"] if change is None else [count_text(change.sad), percent(change.flip_rate)]
    if has_spectra:
        row.append(_spectrum_text(tensor.spectrum))
    return row


def _storage_share(tensor: TensorReport, name: str) -> float | None:
    """Return the bytes of a storage format divided by those of the dense weight; None if either is unknown."""
    storage = tensor.storage_bytes or {}
    size, dense_size = storage.get(name), storage.get("dense")
    return None if size is None or dense_size is None else size / dense_size


def _spectrum_text(spectrum: SpectrumReport | None) -> str:
    return "-" if spectrum is None else f"{spectrum.least:.3g} .. {spectrum.mean:.3g} .. {spectrum.most:.3g}"
