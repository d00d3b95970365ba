"""Solvers by their wire names; each is loaded when it is first asked for."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module

from masksmith._errors import SolverError
from masksmith._lazy import naming_extras

from .base import Solver

_HOMES: Mapping[str, tuple[str, str]] = {
    "auto": ("auto", "Auto"),
    "exact": ("exact", "Exact"),
    "min-cost-flow": ("min_cost_flow", "MinCostFlow"),
    "greedy": ("greedy", "Greedy"),
    "sinkhorn": ("sinkhorn", "Sinkhorn"),
    "enumerate": ("enumerate", "Enumerate"),
    "top-k": ("top_k", "TopK"),
}
NAMES = tuple(_HOMES)


def by_name(name: str) -> Solver:
    """Make the solver of a wire name, with its default settings.

    Raises:
        SolverError: If there is none of that name.
        MissingExtraError: If it needs a package that is not installed.
    """
    if name not in _HOMES:
        raise SolverError(f"unknown solver {name!r}; there are {', '.join(NAMES)}")
    module, solver = _HOMES[name]
    with naming_extras(f"solver {name!r}"):
        kind: type[Solver] = getattr(import_module(f".{module}", __name__), solver)
    return kind()
