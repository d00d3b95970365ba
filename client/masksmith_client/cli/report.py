"""Print the report of a solve as a table or as JSON: one row per tensor, and totals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from masksmith.layouts import BY_CHOICE
from masksmith_wire.documents import Skipped, TensorReport
from masksmith_wire.measures import SpectrumReport, UpdateReport
from masksmith_wire.quantities import count_text
from masksmith_wire.totals import total

from .console import gap_text, percent, print_json, print_line, print_note, seconds, show_table

FORMATS = {"bitmask": "bitmask", "csr": "csr", "bsr": "bsr", "two_four": "2:4"}
HYBRID = {"hybrid": "hybrid"}
"""Further format, of hybrid patterns alone."""
MEMBERS = ("job", "pattern", "solver", "budget", "budget_gap", "output", "weights")


@dataclass(frozen=True, slots=True)
class SolveReport:
    """Results of a solve, local or by a service.

    Attributes:
        pattern, solver, budget: As requested.
        tensors: One report per tensor.
        skipped: Tensors that were not masked, with the reason.
        output, weights: Paths of the masks file and of the updated weights; None if not written.
        wall_s: Duration in seconds.
        job: The job's id; None for a local solve.
        budget_gap: Gap of the budget's allocation.
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
        """Tensors without a mask."""
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
                "tensors": totals.solved,
                "failed": totals.failed,
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
        updated = any(report.update for report in self.tensors)
        has_patterns = any(report.pattern for report in self.tensors)
        head = ("tensor", *(["pattern"] * has_patterns), "status", "shape", "kept", "retained", "gap", "time")
        show_table(
            (*head, *UPDATE_COLUMNS) if updated else head,
            [
                (*_row(report, has_patterns=has_patterns), *(update_cells(report.update) if updated else ()))
                for report in self.tensors
            ],
            left=2 + has_patterns,
        )
        for report in self.failures:
            assert report.error is not None
            print_note(f"{report.name}: {report.error.message} ({report.error.code})")
        for text in self.notes:
            print_note(f"masksmith: {text}")
        names = [skipped.name for skipped in self.skipped if skipped.reason not in BY_CHOICE]
        if names:
            shown = ", ".join(names[:4]) + ", ..." * (len(names) > 4)
            print_line(f"skipped {count_text(len(names))}: {shown} (reasons: --json)")
        print_line(self._summary())
        return None

    def _summary(self) -> str:
        totals = total(self.tensors)
        line = (
            f"{count_text(totals.solved)} tensor(s), {self.pattern}: {percent(totals.density)} of entries keep "
            f"{percent(totals.retained)} of the score, gap {gap_text(totals.gap)}, {seconds(self.wall_s)}"
        )
        if self.budget is not None:
            line += f" (budget {self.budget} distributed with gap {gap_text(self.budget_gap)})"
        return line + "".join(f" -> {path}" for path in (self.output, self.weights) if path)


UPDATE_COLUMNS = ("output error", "gain")


def update_cells(update: UpdateReport | None) -> tuple[str, str]:
    """Return the output's relative error with updated weights, and by what factor the update reduced it."""
    if update is None:
        return "", ""
    error = percent(update.error / update.energy if update.energy else 0.0)
    return error, f"{update.masked_error / update.error:.2f}x" if update.error else ""


def _row(report: TensorReport, *, has_patterns: bool) -> tuple[str, ...]:
    return (
        report.name,
        *([report.pattern or "-"] * has_patterns),
        report.status or report.state.value,
        "x".join(map(str, report.shape)),
        percent(report.density),
        percent(report.retained),
        gap_text(report.gap),
        seconds(report.solve_s),
    )


def show_measures(tensors: Sequence[TensorReport]) -> None:
    """Print a table of measures, one row per tensor with a mask; storage as a share of the dense weight's."""
    done = [tensor for tensor in tensors if tensor.fill is not None]
    changed, spectra = any(tensor.change for tensor in done), any(tensor.spectrum for tensor in done)
    formats = FORMATS | (HYBRID if any("hybrid" in (tensor.storage_bytes or {}) for tensor in done) else {})
    columns = ["tensor", "fill", *formats.values(), "mask bits"]
    columns += ["SAD", "flips"] * changed + ["singular values"] * spectra
    print_line()
    show_table(columns, [_measures(tensor, list(formats), changed, spectra) for tensor in done])


def _measures(tensor: TensorReport, formats: Sequence[str], changed: bool, spectra: bool) -> list[str]:
    storage, diversity, change = tensor.storage_bytes or {}, tensor.diversity, tensor.change
    dense = storage.get("dense") or 1
    shares = [None if (size := storage.get(name)) is None else size / dense for name in formats]
    row = [tensor.name, percent(tensor.fill), *map(percent, shares)]
    row.append("-" if diversity is None else f"{diversity.bits_per_weight:.3f}")
    if changed:
        row += ["-", "-"] if change is None else [count_text(change.sad), percent(change.flip_rate)]
    return row + [_spectrum_text(tensor.spectrum)] * spectra


def _spectrum_text(spectrum: SpectrumReport | None) -> str:
    return "-" if spectrum is None else f"{spectrum.least:.3g} .. {spectrum.mean:.3g} .. {spectrum.most:.3g}"
