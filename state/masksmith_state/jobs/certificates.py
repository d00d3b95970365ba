"""Sums the reports of a tensor's shards to its certificate, and to the change from its previous mask."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from masksmith_wire.documents import SolveStatus
from masksmith_wire.measures import ChangeReport, UpdateReport
from masksmith_wire.totals import relative_gap

from .reports import ShardReport

_FROM_WORST_TO_BEST: Sequence[SolveStatus] = ("time_limit", "feasible", "optimal")


def certificate(parts: Sequence[ShardReport]) -> dict[str, Any]:
    """Sum the reports of all shards of a tensor.

    Returns:
        `status`, `objective`, `upper_bound`, `gap`, `retained`, `density`, `solve_s`, `solver` and `update`, an
        `UpdateReport` or None. The status is the worst of the shards', and the solver that of the first shard.
    """
    objective, bound, total = (
        math.fsum(getattr(part, name) for part in parts) for name in ("objective", "upper_bound", "total_score")
    )
    kept_score = math.fsum(part.objective if part.kept_score is None else part.kept_score for part in parts)
    return {
        "status": next(
            (status for status in _FROM_WORST_TO_BEST if any(part.status == status for part in parts)), None
        ),
        "objective": objective,
        "upper_bound": bound,
        "gap": relative_gap(objective, bound),
        "retained": kept_score / total if total > 0 else 1.0,
        "density": sum(part.kept for part in parts) / sum(part.entries for part in parts),
        "solve_s": math.fsum(part.solve_s for part in parts),
        "solver": parts[0].solver,
        "update": _update(parts),
    }


def change(parts: Sequence[ShardReport], entries: int) -> ChangeReport | None:
    """Sum the changes of all shards of a tensor of `entries` entries; None if it has no previous mask."""
    if any(part.added is None or part.dropped is None for part in parts):
        return None
    added, dropped = sum(part.added or 0 for part in parts), sum(part.dropped or 0 for part in parts)
    return ChangeReport(sad=added + dropped, added=added, dropped=dropped, flip_rate=(added + dropped) / entries)


def _update(reports: Sequence[ShardReport]) -> UpdateReport | None:
    parts = [report.update for report in reports if report.update is not None]
    if not parts:
        return None
    error, masked, energy, seconds = (
        math.fsum(getattr(part, name) for part in parts) for name in ("error", "masked_error", "energy", "update_s")
    )
    # Only ADMM counts solves, and with ADMM a tensor has one shard.
    return UpdateReport(error=error, masked_error=masked, energy=energy, update_s=seconds, solves=parts[0].solves)
