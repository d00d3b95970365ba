"""What the reports of a job's tensors add up to: one answer for terminals, pages and notebooks."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from .documents import TensorReport


@dataclass(frozen=True, slots=True)
class Totals:
    """All masked tensors of a job together; shares are None where no tensor has a mask.

    Attributes:
        solved: Tensors with a mask.
        failed: Tensors with an error.
        optimal: Tensors whose mask is proved optimal.
        entries: Entries of the solved tensors.
        density: Share of the entries that is kept.
        retained: Share of the score that is kept.
        gap: Share of all upper bounds that the masks miss, exactly 0 if every tensor's is; 1 if one has no bound.
        solve_s: Time spent solving.
    """

    solved: int
    failed: int
    optimal: int
    entries: int
    density: float | None
    retained: float | None
    gap: float | None
    solve_s: float


def total(reports: Iterable[TensorReport]) -> Totals:
    """Add up the reports of a job's tensors."""
    reports = list(reports)
    solved = [report for report in reports if report.objective is not None]
    entries = sum(math.prod(report.shape) for report in solved)
    kept = math.fsum(math.prod(report.shape) * (report.density or 0.0) for report in solved)
    return Totals(
        solved=len(solved),
        failed=sum(report.error is not None for report in reports),
        optimal=sum(report.status == "optimal" for report in solved),
        entries=entries,
        density=kept / entries if entries else None,
        retained=total_retained((report.objective, report.retained) for report in solved),
        gap=_total_gap(solved),
        solve_s=math.fsum(report.solve_s or 0.0 for report in solved),
    )


def relative_gap(objective: float, upper_bound: float | None) -> float:
    """Share of the bound that a mask misses: 0 where the bound is 0, 1 where there is none or it is infinite."""
    if upper_bound is None or upper_bound == math.inf:
        return 1.0
    return (upper_bound - objective) / upper_bound if upper_bound > 0 else 0.0


def total_retained(masks: Iterable[tuple[float | None, float | None]]) -> float | None:
    """Share of all score that masks keep, by the objective of each and the share that it keeps; None if unknown."""
    # Where the objective is the score that is kept, dividing it by the share gives the tensor's score.
    known = [(objective, objective / retained) for objective, retained in masks if objective and retained]
    return _ratio([objective for objective, _ in known], [score for _, score in known])


def _total_gap(solved: Sequence[TensorReport]) -> float | None:
    pairs = [(report.objective or 0.0, report.upper_bound) for report in solved]
    if any(bound in (None, math.inf) for _, bound in pairs):
        return 1.0
    bounded = [(objective, bound) for objective, bound in pairs if bound is not None and bound > 0]
    # Differences are summed, not sums subtracted: gaps that are all 0 must give exactly 0.
    missing = _ratio([bound - objective for objective, bound in bounded], [bound for _, bound in bounded])
    return (missing or 0.0) if solved else None


def _ratio(parts: Sequence[float], wholes: Sequence[float]) -> float | None:
    """Divide sums that may exceed the largest float; None where the wholes add up to 0."""
    largest = max(wholes, default=0.0)
    if not 0.0 < largest < math.inf:
        return None
    return math.fsum(part / largest for part in parts) / math.fsum(whole / largest for whole in wholes)
