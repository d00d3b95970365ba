"""Solve: the mask of a shard's scores, by the solver of the worker's device."""

from __future__ import annotations

import masksmith as ms

from .load import Array
from .placement import solver_on
from .work import ShardWork


def solve_shard(work: ShardWork, scores: Array, device: str) -> ms.Solution:
    """Find the mask of a shard.

    Raises:
        ScoresError: If a score is bad.
        InfeasibleError: If no mask is allowed.
        SolverError: If the solver cannot solve the pattern.
    """
    pattern = work.specification.pattern
    # One thread: shards are the parallelism, and a pool child may have no children of its own.
    return ms.solve(
        scores,
        pattern,
        solver_on(work.specification.options.solver, pattern, device),
        time_limit_s=work.left_s,
        threads=1,
        on_progress=work.on_progress,
    )
