"""A finished search as a table or as JSON: one row a tensor, and what they add up to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import prod
from typing import Any

from masksmith_wire.documents import Skipped, TensorReport

from .console import emit, gap_text, note, percent, seconds, show_table


@dataclass(frozen=True, slots=True)
class Total:
    """All masked tensors together: shares weighted by score, except density, which counts entries."""

    tensors: int
    failed: int
    retained: float | None
    gap: float | None
    density: float | None
    seconds: float


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

    @property
    def total(self) -> Total:
        """Add up."""
        done = [report for report in self.tensors if report.objective is not None]
        kept = sum(report.objective or 0.0 for report in done)
        bound = sum(report.upper_bound or 0.0 for report in done)
        score = sum((report.objective or 0.0) / report.retained for report in done if report.retained)
        entries = sum(prod(report.shape) for report in done)
        kept_entries = sum(prod(report.shape) * (report.density or 0.0) for report in done)
        # Differences are summed, not sums subtracted: all gaps 0 must give exactly 0.
        missing = sum((report.upper_bound or 0.0) - (report.objective or 0.0) for report in done if report.gap)
        return Total(
            tensors=len(done),
            failed=len(self.failures),
            retained=kept / score if score else None,
            gap=(missing / bound if bound else 0.0) if done else None,
            density=kept_entries / entries if entries else None,
            seconds=self.wall_s,
        )

    def document(self) -> dict[str, Any]:
        """Give the JSON form."""
        return {
            "job": self.job,
            "pattern": self.pattern,
            "solver": self.solver,
            "budget": self.budget,
            "budget_gap": self.budget_gap,
            "output": self.output,
            "weights": self.weights,
            "tensors": [report.model_dump(mode="json") for report in self.tensors],
            "skipped": [skipped.model_dump(mode="json") for skipped in self.skipped],
            "total": asdict(self.total),
        }

    def show(self, *, as_json: bool) -> None:
        """Print it."""
        if as_json:
            return emit(self.document())
        updated = any(report.update for report in self.tensors)
        own = self._has_own_patterns
        head = ("tensor", *(["pattern"] * own), "status", "shape", "kept", "retained", "gap", "time")
        show_table(
            (*head, "output error", "gain") if updated else head,
            [(*_row(report, own=own), *(_update(report) if updated else ())) for report in self.tensors],
            left=2 + own,
        )
        for report in self.failures:
            assert report.error is not None
            note(f"{report.name}: {report.error.message} ({report.error.code})")
        if self.skipped:
            some = ", ".join(skipped.name for skipped in self.skipped[:4])
            print(f"skipped {len(self.skipped)}: {some}{', ...' * (len(self.skipped) > 4)} (reasons: --json)")
        print(self._summary())
        return None

    @property
    def _has_own_patterns(self) -> bool:
        return any(report.pattern for report in self.tensors)

    def _summary(self) -> str:
        total = self.total
        line = (
            f"{total.tensors} tensor(s), {self.pattern}: {percent(total.density)} of entries keep "
            f"{percent(total.retained)} of the score, gap {gap_text(total.gap)}, {seconds(total.seconds)}"
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
