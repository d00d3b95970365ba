"""Names of solvers; a module of its own, so that the command line's help does not import the documents."""

from __future__ import annotations

from typing import Literal

SolverName = Literal["auto", "exact", "min-cost-flow", "greedy", "sinkhorn", "enumerate", "top-k"]
