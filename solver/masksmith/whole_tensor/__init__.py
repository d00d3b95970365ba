"""Solvers of patterns without tiles: a module for each pattern, and what these share.

A budget of these patterns belongs to the whole tensor, to a row or column of blocks, or (V:N:M) to a panel of rows.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

from masksmith._errors import SolverError
from masksmith._problem import Problem
from masksmith._solution import Solution
from masksmith.patterns import VNM, Block, Channels, Hybrid, Pattern, Unstructured, solver_refusal
from masksmith.solvers.base import Solver

from .passes import WholeTensorOptions as WholeTensorOptions

WholeTensorSolver = Callable[[Problem, Any, WholeTensorOptions], Solution]
"""Solves a problem; the arguments are the problem, its pattern and options."""

_SOLVERS: dict[type, tuple[str, str]] = {
    Unstructured: ("unstructured", "solve_unstructured"),
    Block: ("blocks", "solve_blocks"),
    Hybrid: ("hybrid", "solve_hybrid"),
    VNM: ("vnm", "solve_vnm"),
    Channels: ("channels", "solve_channels"),
}
"""Module and name of the function that solves a pattern, by the class of the pattern."""


def whole_tensor_solver(pattern: Pattern, solver: Solver) -> WholeTensorSolver:
    """Return the function that solves a pattern.

    Args:
        pattern: Pattern of allowed masks.
        solver: Only its name is read: it must be `auto`, or the name that `patterns.solver_support` has for the
            pattern (`equivalent_solver`).

    Raises:
        SolverError: If no function solves the pattern, or the solver does not support it.
    """
    if type(pattern) not in _SOLVERS:
        raise SolverError(f"there is no solver for {pattern}")
    module, function = _SOLVERS[type(pattern)]
    refusal = solver_refusal(pattern, solver.name)
    if refusal is not None:
        raise SolverError(refusal)
    solve: WholeTensorSolver = getattr(import_module(f".{module}", __name__), function)
    return solve
