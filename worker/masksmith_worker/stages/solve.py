"""Solve: the mask of a shard's scores, by the solver of the worker's device.

What cannot run there runs on the processor, and the report says which it was.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from functools import cache
from typing import Any, cast

import masksmith as ms
from masksmith.patterns import TilePattern
from masksmith.solvers import by_name

from .load import Array
from .work import ShardWork

log = logging.getLogger(__name__)


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
        layout=work.tensor.layout,
    )


def solver_on(name: str, pattern: ms.Pattern, device: str) -> ms.Solver:
    """Make the solver of a wire name for a device such as `cpu` or `cuda:0`.

    `auto` chooses first; transposable tiles are what devices solve.
    """
    solver = by_name(name)
    if device == "cpu" or not isinstance(pattern, TilePattern) or pattern.tile.separable:
        return solver
    chosen = solver.select(pattern).solver if isinstance(solver, ms.Auto) else solver
    if isinstance(chosen, ms.Exact) and (reason := _reason_against(device)):
        log.warning("%s cannot be used: %s; solving on the CPU", device, reason)
        return chosen
    if isinstance(chosen, ms.Exact | ms.Greedy | ms.Sinkhorn):
        return cast("ms.Solver", replace(cast("Any", chosen), device=device))
    return chosen


@cache
def _reason_against(device: str) -> str | None:
    from masksmith.cuda import reason_unusable

    return reason_unusable()
