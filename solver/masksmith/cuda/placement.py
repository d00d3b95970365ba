"""Solves on the CUDA device that the exact solver names, or that the scores are on; logs fallbacks to the CPU."""

from __future__ import annotations

import logging
from dataclasses import replace
from functools import cache
from typing import Any

from masksmith._errors import SolverError
from masksmith._problem import Problem
from masksmith._solution import Solution
from masksmith._tensors import is_torch
from masksmith.solvers.base import Solver
from masksmith.solvers.exact import Exact

log = logging.getLogger("masksmith")


def solve_on_device(problem: Problem, solver: Solver) -> Solution | str | None:
    """Solve on a CUDA device, if the solver is `Exact` and names one, or names none and the scores are on one.

    Returns:
        The solution; None if the problem is to be solved on the CPU; or the reason for falling back to the CPU.

    Raises:
        SolverError: If the solver, `Exact` or another, names a device that cannot be used in this process.
    """
    if not isinstance(solver, Exact):
        _check_device_of_torch_solver(solver)
        return None
    device = _device_for(problem.scores, solver)
    if device is None:
        return None
    from . import is_device_error, reason_kernels_cannot_run, reason_not_cuda_device, solve_on
    from .jit import SIMULATED

    is_named = solver.device is not None
    reason = reason_kernels_cannot_run()
    if reason is None and is_named and not SIMULATED:  # The simulator needs no device.
        reason = reason_not_cuda_device(device)
    if reason is not None:
        if is_named:
            raise SolverError(f"device={device!r} cannot be used: {reason}")
        _log_once(f"scores on {device} are solved on the CPU: {reason}")
        return reason
    try:
        return solve_on(device, problem)
    except Exception as error:
        if not is_device_error(error):
            raise
        reason = f"{device} failed ({type(error).__name__}: {error})"
        log.warning("%s%s; solving on the CPU", f"{problem.name}: " if problem.name else "", reason)
        return reason


def with_fallback_reason(solution: Solution, reason: str | None) -> Solution:
    """Add the reason for a CPU fallback, and the CPU as the device, to a solution's stats; None changes nothing."""
    if reason is None:
        return solution
    return replace(solution, stats={**solution.stats, "fallback": reason, "device": "cpu"})


def _device_for(scores: Any, solver: Exact) -> str | None:
    """Return the CUDA device to solve on; None for the CPU."""
    if solver.device == "cpu":
        return None
    if solver.device is not None:
        return solver.device
    return str(scores.device) if is_torch(scores) and getattr(scores, "is_cuda", False) else None


def _check_device_of_torch_solver(solver: Solver) -> None:
    """Raise `SolverError` if the solver computes with torch, and names a device that torch cannot use.

    Such a solver moves tiles to its device itself.
    """
    device = getattr(solver, "device", None)
    if device in (None, "cpu"):
        return
    from masksmith.solvers._rounding.torch_chunks import TorchSolver

    from . import reason_not_torch_device

    reason = reason_not_torch_device(device) if isinstance(solver, TorchSolver) else None
    if reason is not None:
        raise SolverError(f"device={device!r} cannot be used: {reason}")


@cache
def _log_once(message: str) -> None:
    log.warning(message)
