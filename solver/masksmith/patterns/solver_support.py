"""Which solver supports which pattern, decided without reading any scores."""

from __future__ import annotations

from .block import Block
from .geometry import TileSpec
from .pattern import Pattern, TilePattern
from .vnm import VNM


def solver_refusal(pattern: Pattern, solver: str) -> str | None:
    """Return why a solver (by name) does not support a pattern, or None if it does; its options are not checked."""
    if isinstance(pattern, TilePattern):
        return tile_refusal(pattern.tile, solver)
    if solver in ("auto", equivalent_solver(pattern)):
        return None
    return f"{solver} does not solve {pattern}; leave the solver at auto"


def equivalent_solver(pattern: Pattern) -> str:
    """Return the one solver name, besides `auto`, that is accepted for a pattern without tiles.

    It has the same effect as `auto`: `masksmith.whole_tensor` solves the pattern, by the method that has this name.
    """
    if isinstance(pattern, VNM):
        return "enumerate"
    return "min-cost-flow" if isinstance(pattern, Block) and pattern.balance == "both" else "top-k"


def tile_refusal(tile: TileSpec, solver: str) -> str | None:
    """Return why a solver (by name) does not support tiles of this size and these budgets, or None if it does."""
    if solver == "auto":
        return None
    if solver == "top-k":
        if tile.rows == 1 and tile.separable:
            return None
        return "top-k solves plain n:m patterns only, which have no column budgets; exact solves transposable ones"
    if solver == "enumerate":
        is_enumerable = (tile.rows, tile.cols) == (4, 4) and tile.row_keep == tile.col_keep and not tile.at_most
        if is_enumerable:
            return None
        return "enumerate supports transposable 1:4, 2:4, 3:4 and 4:4 with exact fill only; exact solves every size"
    if not tile.separable:
        return None
    if solver == "exact":
        return "exact solves transposable patterns, which have column budgets; top-k solves plain n:m ones exactly"
    return f"{solver} needs column budgets; top-k solves plain n:m patterns"
