"""A finished search as a table or as JSON: one row a tensor, and what they add up to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from masksmith.layouts import BY_CHOICE
from masksmith_wire.documents import Skipped, SpectrumReport, TensorReport
from masksmith_wire.totals import total

from .console import emit, gap_text, note, percent, seconds, show_table

FORMATS = {"bitmask": "bitmask", "csr": "csr", "bsr": "bsr", "two_four": "2:4"}
MEMBERS = ("job", "pattern", "solver", "budget", "budget_gap", "output", "weights")


@dataclass(frozen=True, slots=True)
class Report:
    """What a search found and where it went."""

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

    @property
    def failures(self) -> list[TensorReport]:
        """Tensors without a mask."""
        return [report for report in self.tensors if report.error is not None]

    def document(self) -> dict[str, Any]:
        """Give the JSON form."""
        totals = total(self.tensors)
        return {
            **{name: getattr(self, name) for name in MEMBERS},
            "tensors": [report.model_dump(mode="json") for report in self.tensors],
            "skipped": [skipped.model_dump(mode="json") for skipped in self.skipped],
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
        """Print it."""
        if as_json:
            return emit(self.document())
        updated = any(report.update for report in self.tensors)
        own = any(report.pattern for report in self.tensors)
        head = ("tensor", *(["pattern"] * own), "status", "shape", "kept", "retained", "gap", "time")
        show_table(
            (*head, "output error", "gain") if updated else head,
            [(*_row(report, own=own), *(_update(report) if updated else ())) for report in self.tensors],
            left=2 + own,
        )
        for report in self.failures:
            assert report.error is not None
            note(f"{report.name}: {report.error.message} ({report.error.code})")
        names = [skipped.name for skipped in self.skipped if skipped.reason not in BY_CHOICE]
        if names:
            print(f"skipped {len(names)}: {', '.join(names[:4])}{', ...' * (len(names) > 4)} (reasons: --json)")
        print(self._summary())
        return None

    def _summary(self) -> str:
        totals = total(self.tensors)
        line = (
            f"{totals.solved} tensor(s), {self.pattern}: {percent(totals.density)} of entries keep "
            f"{percent(totals.retained)} of the score, gap {gap_text(totals.gap)}, {seconds(self.wall_s)}"
        )
        if self.budget is not None:
            line += f" (budget {self.budget} shared out with gap {gap_text(self.budget_gap)})"
        return line + "".join(f" -> {path}" for path in (self.output, self.weights) if path)


def _update(report: TensorReport) -> tuple[str, str]:
    """Say what is wrong with the output now, and how many times more it was with the weights merely masked."""
    update = report.update
    if update is None:
        return "", ""
    error = percent(update.error / update.energy if update.energy else 0.0)
    return error, f"{update.masked_error / update.error:.2f}x" if update.error else ""


def _row(report: TensorReport, *, own: bool) -> tuple[str, ...]:
    return (
        report.name,
        *([report.pattern or "-"] * own),
        report.status or report.state.value,
        "x".join(map(str, report.shape)),
        percent(report.density),
        percent(report.retained),
        gap_text(report.gap),
        seconds(report.solve_s),
    )


def show_measures(tensors: Sequence[TensorReport]) -> None:
    """Print a row for every tensor that has a mask; storage as a share of the dense weight."""
    done = [tensor for tensor in tensors if tensor.fill is not None]
    changed, spectra = any(tensor.change for tensor in done), any(tensor.spectrum for tensor in done)
    columns = ["tensor", "fill", *FORMATS.values(), "mask bits"]
    columns += ["SAD", "flips"] * changed + ["singular values"] * spectra
    print()
    show_table(columns, [_measures(tensor, changed, spectra) for tensor in done])


def _measures(tensor: TensorReport, changed: bool, spectra: bool) -> list[str]:
    storage, diversity, change = tensor.storage_bytes or {}, tensor.diversity, tensor.change
    dense = storage.get("dense") or 1
    shares = [None if (size := storage.get(name)) is None else size / dense for name in FORMATS]
    row = [tensor.name, percent(tensor.fill), *map(percent, shares)]
    row.append("-" if diversity is None else f"{diversity.bits_per_weight:.3f}")
    if changed:
        row += ["-", "-"] if change is None else [str(change.sad), percent(change.flip_rate)]
    return row + [_span(tensor.spectrum)] * spectra


def _span(spectrum: SpectrumReport | None) -> str:
    return "-" if spectrum is None else f"{spectrum.least:.3g} .. {spectrum.mean:.3g} .. {spectrum.most:.3g}"
