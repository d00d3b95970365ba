"""Capacity: the largest number of entries that a pattern allows to keep."""

from __future__ import annotations

from .block import Block
from .geometry import Grid
from .nm import NM
from .pattern import Pattern


def capacity(pattern: Pattern, shape: tuple[int, ...]) -> float:
    """Return the largest number of entries that an allowed mask of this shape keeps.

    Exact for N:M patterns, ragged edges included; for others `density * entries`, without rounding to whole blocks.

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
    """Return the largest number of entries kept by a crop of a tile, given its budgets and those of the padding."""
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
