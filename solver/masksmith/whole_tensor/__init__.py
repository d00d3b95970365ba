"""Solvers of patterns whose budgets belong to the whole tensor ("plans"), one module per pattern."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

from masksmith._errors import SolverError
from masksmith._problem import Problem
from masksmith._solution import Solution
from masksmith.patterns import VNM, Block, Channels, Hybrid, Pattern, Unstructured, solver_refusal
from masksmith.solvers.base import Solver

from .reader import PlanOptions as PlanOptions

SolvePlan = Callable[[Problem, Any, PlanOptions], Solution]

_PLANS: dict[type, tuple[str, str]] = {
    Unstructured: ("unstructured", "solve_unstructured"),
    Block: ("blocks", "solve_blocks"),
    Hybrid: ("hybrid", "solve_hybrid"),
    VNM: ("vnm", "solve_vnm"),
    Channels: ("channels", "solve_channels"),
}


def plan_for(pattern: Pattern, solver: Solver) -> SolvePlan:
    """Return the plan that solves a pattern.

    Args:
        pattern: Pattern of allowed masks.
        solver: `auto`, or the solver that the plan is equivalent to (`patterns.solver_support.plan_solver`).

    Raises:
        SolverError: If the pattern has no plan, or the solver does not support it.
    """
    if type(pattern) not in _PLANS:
        raise SolverError(f"no solver is known for {pattern}")
    module, function = _PLANS[type(pattern)]
    refusal = solver_refusal(pattern, solver.name)
    if refusal is not None:
        raise SolverError(refusal)
    plan: SolvePlan = getattr(import_module(f".{module}", __name__), function)
    return plan
