"""Which device a solve runs on: where its scores live, unless the solver names one; a fallback is always reported."""

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
    """Solve on a CUDA device, if that is where this problem belongs.

    Returns:
        The solution; None when it belongs to the CPU; or the reason why the CPU must do what the device could not.

    Raises:
        SolverError: If the solver names a device that cannot be used.
    """
    device = _device_of(problem.scores, solver)
    if device is None:
        return None
    from . import failures, reason_unusable, solve_on

    reason = reason_unusable()
    if reason is not None:
        if isinstance(solver, Exact) and solver.device is not None:
            raise SolverError(f"device={solver.device!r} cannot be used: {reason}")
        _log_once(f"scores on {device} are solved on the CPU: {reason}")
        return reason
    try:
        return solve_on(device, problem)
    except failures() as error:
        reason = f"{device} failed ({type(error).__name__}: {error})"
        log.warning("%s%s; solving on the CPU", f"{problem.name}: " if problem.name else "", reason)
        return reason


def note(solution: Solution, reason: str | None) -> Solution:
    """Note in a solution's stats why it was solved on the CPU although it belonged to a device."""
    if reason is None:
        return solution
    return replace(solution, stats={**solution.stats, "fallback": reason, "device": "cpu"})


def _device_of(scores: Any, solver: Solver) -> str | None:
    if not isinstance(solver, Exact) or solver.device == "cpu":
        return None
    if solver.device is not None:
        return solver.device
    return str(scores.device) if is_torch(scores) and getattr(scores, "is_cuda", False) else None


@cache
def _log_once(message: str) -> None:
    log.warning(message)
