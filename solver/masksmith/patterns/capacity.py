"""Capacity: the most entries that a pattern lets a weight keep."""

from __future__ import annotations

from .block import Block
from .geometry import Grid
from .nm import NM
from .pattern import Pattern


def capacity(pattern: Pattern, shape: tuple[int, ...]) -> float:
    """Give the most entries that an allowed mask of this shape keeps.

    Exact for N:M patterns, ragged edges included; for others `density * entries`, rounding to whole blocks apart.

    Raises:
        PatternError: If the pattern does not fit the shape.
    """
    grid = pattern.grid(shape)
    if not isinstance(pattern, NM):
        inside = 1.0 if not isinstance(pattern, Block) or pattern.nested is None else pattern.nested.density
        return pattern.density * inside * grid.rows * grid.cols
    down, below = divmod(grid.rows, grid.tile_rows)
    across, beside = divmod(grid.cols, grid.tile_cols)
    kinds = [(grid.tile_rows, grid.tile_cols, down * across), (below, grid.tile_cols, across)]
    kinds += [(grid.tile_rows, beside, down), (below, beside, 1)]
    return float(sum(tiles * _crop(pattern, grid, height, width) for height, width, tiles in kinds))


def _crop(pattern: NM, grid: Grid, height: int, width: int) -> int:
    """Give the most that a crop of a tile keeps: its own budgets, and what the padded part must take."""
    if pattern.ragged == "dense" and (height, width) != (grid.tile_rows, grid.tile_cols):
        return height * width
    tile = pattern.tile
    by_rows = height * min(tile.row_keep, width)
    if tile.separable:
        return by_rows
    most = min(by_rows, width * min(tile.col_keep, height))
    if not tile.at_most:
        beside, below = tile.cols - width, tile.rows - height
        most = min(most, width * tile.col_keep - below * (tile.row_keep - beside))
    return most
