"""Sums the reports of a job's tensors; terminals, pages and notebooks show the same totals."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from .documents import TensorReport


@dataclass(frozen=True, slots=True)
class Totals:
    """Totals of the tensors of a job; `density`, `retained` and `gap` are None if no tensor has a mask.

    Attributes:
        solved_count: Number of tensors with a mask.
        failed_count: Number of tensors with an error.
        optimal_count: Number of tensors whose mask is proved optimal.
        entries: Number of entries of the tensors with a mask.
        density: Share of the entries that is kept.
        retained: Share of the score that is kept; also None if it is unknown.
        gap: Relative gap of the summed objectives to the summed bounds. It is exactly 0 if all gaps are 0, and 1 if a
            bound is missing or infinite.
        solve_s: Seconds spent solving the tensors with a mask.
    """

    solved_count: int
    failed_count: int
    optimal_count: int
    entries: int
    density: float | None
    retained: float | None
    gap: float | None
    solve_s: float


def total(reports: Iterable[TensorReport]) -> Totals:
    """Sum the reports of a job's tensors."""
    reports = list(reports)
    solved = [report for report in reports if report.objective is not None]
    entries = sum(math.prod(report.shape) for report in solved)
    kept = math.fsum(math.prod(report.shape) * (report.density or 0.0) for report in solved)
    return Totals(
        solved_count=len(solved),
        failed_count=sum(report.error is not None for report in reports),
        optimal_count=sum(report.status == "optimal" for report in solved),
        entries=entries,
        density=kept / entries if entries else None,
        retained=total_retained((report.objective, report.retained, report.total_score) for report in solved),
        gap=total_gap((report.objective or 0.0, report.upper_bound) for report in solved),
        solve_s=math.fsum(report.solve_s or 0.0 for report in solved),
    )


def relative_gap(objective: float, upper_bound: float | None) -> float:
    """Gap between objective and bound, as a share of the bound: 0 if the bound is 0, 1 if it is missing or infinite."""
    if upper_bound is None or upper_bound == math.inf:
        return 1.0
    return (upper_bound - objective) / upper_bound if upper_bound > 0 else 0.0


def exact_sum(values: Iterable[float]) -> float:
    """Return the correctly rounded sum of non-negative numbers, or infinity if it exceeds float64."""
    try:
        return math.fsum(values)
    except OverflowError:
        return math.inf


def total_retained(masks: Iterable[tuple[float | None, float | None, float | None]]) -> float | None:
    """Retained share of the total score of several masks, from (objective, retained share, total score) of each mask.

    A mask counts if its share is known and its total score is known or can be estimated, as objective / share (neither
    may be 0). Older files of masks have no total scores; the estimate is only an approximation for a pattern with a
    norm of blocks, or with hysteresis. None if no mask counts, a total score is infinite, or all are 0.
    """
    pairs = [
        (retained, objective / retained if total_score is None and objective and retained else total_score)
        for objective, retained, total_score in masks
    ]
    known = [(share, score) for share, score in pairs if share is not None and score is not None]
    return ratio_of_sums([share * score for share, score in known], [score for _, score in known])


def total_gap(masks: Iterable[tuple[float, float | None]]) -> float | None:
    """Relative gap of several masks together, from (objective, upper bound) of each mask.

    1 if a bound is missing or infinite, None if there are no masks.
    """
    pairs = list(masks)
    if any(bound in (None, math.inf) for _, bound in pairs):
        return 1.0
    bounded = [(objective, bound) for objective, bound in pairs if bound is not None and bound > 0]
    # Sum the differences instead of subtracting sums: if all gaps are 0, the result must be exactly 0.
    gap = ratio_of_sums([bound - objective for objective, bound in bounded], [bound for _, bound in bounded])
    return (gap or 0.0) if pairs else None


def ratio_of_sums(parts: Sequence[float], wholes: Sequence[float]) -> float | None:
    """Divide two sums without overflow, by scaling; None if `wholes` sum to 0 or have an infinite member."""
    largest = max(wholes, default=0.0)
    if not 0.0 < largest < math.inf:
        return None
    return math.fsum(part / largest for part in parts) / math.fsum(whole / largest for whole in wholes)
