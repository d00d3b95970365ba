"""Which solver takes which pattern: what can be refused before anything is read."""

from __future__ import annotations

from .block import Block
from .geometry import TileSpec
from .pattern import Pattern, TilePattern
from .vnm import VNM


def solver_refusal(pattern: Pattern, solver: str) -> str | None:
    """Say why a solver (by its wire name) cannot solve a pattern, or None when it can; options may still forbid it."""
    if isinstance(pattern, TilePattern):
        return tile_refusal(pattern.tile, solver)
    if solver in ("auto", plan_solver(pattern)):
        return None
    return f"{solver} does not solve {pattern}; leave the solver at auto"


def plan_solver(pattern: Pattern) -> str:
    """Name the solver that a plan for the whole tensor amounts to."""
    if isinstance(pattern, VNM):
        return "enumerate"
    return "min-cost-flow" if isinstance(pattern, Block) and pattern.balance == "both" else "top-k"


def tile_refusal(tile: TileSpec, solver: str) -> str | None:
    """Say why a solver cannot solve such tiles, or None when it can."""
    if solver == "auto":
        return None
    if solver == "top-k":
        free = tile.rows == 1 and tile.separable
        return (
            None
            if free
            else "top-k solves plain n:m patterns only, where columns are free; exact solves transposable ones"
        )
    if solver == "enumerate":
        known = (tile.rows, tile.cols) == (4, 4) and tile.row_keep == tile.col_keep and not tile.at_most
        return (
            None
            if known
            else "enumerate knows transposable 1:4, 2:4, 3:4 and 4:4 with exact fill only; exact solves every size"
        )
    if not tile.separable:
        return None
    if solver == "exact":
        return "exact solves transposable patterns, which bind the columns too; top-k solves plain n:m ones exactly"
    return f"{solver} needs column budgets; top-k solves plain n:m patterns"
