"""Solve stage: finds the mask of a shard, with the solver of the job on the worker's device.

A solver that does not support the device runs on the CPU; the report names the device that was used.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from functools import cache
from typing import Any, cast

import masksmith as ms
from masksmith.patterns import TilePattern
from masksmith.solvers import by_name

from .indices import error_indices_from
from .load import Array
from .magnitudes import MagnitudeRows
from .work import ShardWork

log = logging.getLogger(__name__)


def solve_shard(work: ShardWork, scores: Array | MagnitudeRows, device: str) -> ms.Solution:
    """Find the mask of a shard.

    Raises:
        ScoresError: If a score is invalid.
        InfeasibleError: If no mask satisfies the pattern.
        SolverError: If the solver does not support the pattern.
    """
    pattern = work.specification.pattern
    # One thread: the pool solves shards in parallel, each in a process. With more threads, `ms.solve` may start
    # processes, which a process of the pool cannot.
    with error_indices_from(work.shard.first):
        return ms.solve(
            scores,
            pattern,
            solver_on(work.specification.options.solver, pattern, device),
            time_limit_s=work.remaining_s,
            threads=1,
            on_progress=work.on_progress,
            layout=work.tensor.layout,
        )


def solver_on(name: str, pattern: ms.Pattern, device: str) -> ms.Solver:
    """Make the solver of this name for a device such as `cpu` or `cuda:0`.

    Only patterns that constrain both rows and columns of a tile are solved on a GPU; for them, `auto` is replaced by
    the solver that it selects. The solver runs on the CPU for all other patterns, and also if it does not support
    GPUs or the GPU cannot be used.
    """
    solver = by_name(name)
    if device == "cpu" or not isinstance(pattern, TilePattern) or pattern.tile.separable:
        return solver
    if isinstance(solver, ms.Auto):
        solver = solver.select(pattern).solver
    if not isinstance(solver, ms.Exact | ms.Greedy | ms.Sinkhorn):
        return solver
    if reason := _unusable_reason(device, needs_kernels=isinstance(solver, ms.Exact)):
        log.warning("%s cannot be used: %s; solving on the CPU", device, reason)
        return solver
    return cast("ms.Solver", replace(cast("Any", solver), device=device))


@cache
def _unusable_reason(device: str, *, needs_kernels: bool) -> str | None:
    """Return why a CUDA device cannot be used, or None.

    Args:
        device: The device.
        needs_kernels: Whether the solver runs kernels of numba-cuda there.
    """
    from masksmith.cuda import reason_kernels_cannot_run, reason_not_cuda_device

    return reason_not_cuda_device(device) or (reason_kernels_cannot_run() if needs_kernels else None)
