"""Solvers by name; a solver's module is imported when it is first used."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from inspect import getattr_static
from typing import cast

from masksmith._errors import SolverError
from masksmith._lazy import naming_extras

from .base import Solver

_MODULES: Mapping[str, tuple[str, str]] = {
    "auto": ("auto", "Auto"),
    "exact": ("exact", "Exact"),
    "min-cost-flow": ("min_cost_flow", "MinCostFlow"),
    "greedy": ("greedy", "Greedy"),
    "sinkhorn": ("sinkhorn", "Sinkhorn"),
    "enumerate": ("enumerate", "Enumerate"),
    "top-k": ("top_k", "TopK"),
}
NAMES = tuple(_MODULES)


def read_solver(solver: object) -> Solver:
    """Return the solver of a name, or a solver as it is.

    Raises:
        SolverError: If it is neither; a class of solvers is no solver.
        MissingExtraError: As `by_name`.
    """
    if isinstance(solver, str):
        return by_name(solver)
    if isinstance(solver, type):
        raise SolverError(f"{solver.__name__} is a class of solvers; pass a solver, such as {solver.__name__}()")
    # Properties are not computed: one may raise an error, such as that of a device that is not there.
    members = ("name", "parallelism", "refusal", "__call__")
    missing = [each for each in members if getattr_static(solver, each, None) is None and not hasattr(solver, each)]
    if missing:
        raise SolverError(f"{solver!r} is no solver: it has no {missing[0]}; pass a name such as 'exact'")
    return cast("Solver", solver)


def by_name(name: str) -> Solver:
    """Return the solver of this name, with default settings.

    Raises:
        SolverError: If the name is unknown.
        MissingExtraError: If it needs a package that is not installed.
    """
    if name not in _MODULES:
        raise SolverError(f"unknown solver {name!r}; there are {', '.join(NAMES)}")
    module, class_name = _MODULES[name]
    with naming_extras(f"solver {name!r}"):
        solver_class: type[Solver] = getattr(import_module(f".{module}", __name__), class_name)
    return solver_class()
