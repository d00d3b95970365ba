"""Sums the reports of a tensor's shards to its certificate, and to the change from its previous mask."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from masksmith_wire.documents import SolveStatus
from masksmith_wire.measures import ChangeReport, UpdateReport
from masksmith_wire.totals import exact_sum, ratio_of_sums, relative_gap

from .reports import ShardReport

_FROM_WORST_TO_BEST: Sequence[SolveStatus] = ("time_limit", "feasible", "optimal")


def certificate(reports: Sequence[ShardReport]) -> dict[str, Any]:
    """Sum the reports of all shards of a tensor, none of which has failed.

    Returns:
        `status`, `objective`, `upper_bound`, `gap`, `retained`, `total_score`, `density`, `solve_s`, `solver` and
        `update`. The status is the worst of the shards', and the solver that of the first shard. `update` is an
        `UpdateReport`, or None if the weights are not updated.
    """
    objective, bound, total = (
        exact_sum(getattr(report, name) for report in reports) for name in ("objective", "upper_bound", "total_score")
    )
    kept_scores = [report.objective if report.kept_score is None else report.kept_score for report in reports]
    return {
        "status": next(
            (status for status in _FROM_WORST_TO_BEST if any(report.status == status for report in reports)), None
        ),
        "objective": objective,
        "upper_bound": bound,
        "gap": relative_gap(objective, bound),
        "retained": _retained(kept_scores, [report.total_score for report in reports]),
        "total_score": total,
        "density": sum(report.kept for report in reports) / sum(report.entries for report in reports),
        "solve_s": exact_sum(report.solve_s for report in reports),
        "solver": reports[0].solver,
        "update": _update(reports),
    }


def change(reports: Sequence[ShardReport], entries: int) -> ChangeReport | None:
    """Sum the changes of all shards of a tensor of `entries` entries; None if it has no previous mask."""
    if any(report.added is None or report.dropped is None for report in reports):
        return None
    added, dropped = sum(report.added or 0 for report in reports), sum(report.dropped or 0 for report in reports)
    return ChangeReport(sad=added + dropped, added=added, dropped=dropped, flip_rate=(added + dropped) / entries)


def _retained(kept_scores: Sequence[float], total_scores: Sequence[float]) -> float:
    """The kept share of the total score; 1 if the total score is 0, and 0 if a shard's total score is infinite."""
    kept, total = exact_sum(kept_scores), exact_sum(total_scores)
    if total < math.inf:
        return kept / total if total > 0 else 1.0
    # The sum exceeds float64, so scaled sums are divided; the ratio is None if the total of a shard is itself infinite.
    return ratio_of_sums(kept_scores, total_scores) or 0.0


def _update(reports: Sequence[ShardReport]) -> UpdateReport | None:
    updates = [report.update for report in reports if report.update is not None]
    if not updates:
        return None
    error, masked, energy, seconds = (
        exact_sum(getattr(update, name) for update in updates)
        for name in ("error", "masked_error", "energy", "update_s")
    )
    # Only ADMM reports a number of solves, and with ADMM a tensor has one shard.
    return UpdateReport(error=error, masked_error=masked, energy=energy, update_s=seconds, solves=updates[0].solves)
