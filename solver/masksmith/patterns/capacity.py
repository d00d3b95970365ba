"""Capacity: the largest number of entries that a pattern allows to keep."""

from __future__ import annotations

from .block import Block
from .geometry import Grid
from .hybrid import Hybrid
from .nm import NM
from .pattern import Pattern


def capacity(pattern: Pattern, shape: tuple[int, ...]) -> float:
    """Return the largest number of entries that an allowed mask of this shape keeps.

    Exact for N:M and hybrid patterns, ragged edges included; for others `density * entries`, without rounding to whole
    blocks.

    Raises:
        PatternError: If the pattern does not fit the shape.
    """
    grid = pattern.grid(shape)
    if isinstance(pattern, Hybrid):
        return _hybrid(pattern, grid)
    if not isinstance(pattern, NM):
        inside = 1.0 if not isinstance(pattern, Block) or pattern.nested is None else pattern.nested.density
        return pattern.density * inside * grid.rows * grid.cols
    return float(sum(tiles * _crop(pattern, grid, height, width) for height, width, tiles in _pieces(grid)))


def _pieces(grid: Grid) -> list[tuple[int, int, int]]:
    """Return height, width and number of the whole pieces, of those cut at the right and below, and of the corner."""
    down, below = divmod(grid.rows, grid.tile_rows)
    across, beside = divmod(grid.cols, grid.tile_cols)
    pieces = [(grid.tile_rows, grid.tile_cols, down * across), (below, grid.tile_cols, across)]
    return [*pieces, (grid.tile_rows, beside, down), (below, beside, 1)]


def _hybrid(pattern: Hybrid, grid: Grid) -> float:
    """Return what the inner pattern allows everywhere, and what dense blocks add where they add most."""
    left, kept = pattern.dense_blocks(grid), 0.0
    gains: list[tuple[float, int]] = []
    for height, width, number in _pieces(grid):
        if height * width * number == 0:
            continue
        is_edge = (height, width) != (grid.tile_rows, grid.tile_cols)
        entries = float(height * width)
        inside = entries if is_edge and pattern.ragged == "dense" else capacity(pattern.inner, (height, width))
        kept += number * inside
        gains.append((entries - inside, number))
    for gain, number in sorted(gains, reverse=True):
        taken = min(left, number)
        kept, left = kept + taken * gain, left - taken
    return kept


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
