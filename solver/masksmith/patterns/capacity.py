"""Capacity: the largest number of entries that an allowed mask keeps."""

from __future__ import annotations

from .block import Block
from .geometry import Grid
from .hybrid import Hybrid
from .nm import NM
from .pattern import Pattern


def capacity(pattern: Pattern, shape: tuple[int, ...]) -> float:
    """Return the largest number of entries that an allowed mask of this shape keeps.

    The result is exact for N:M and hybrid patterns, ragged edges included. For other patterns it is
    `density * entries`, times the density of a nested pattern, without rounding to whole blocks, channels or entries.

    Raises:
        PatternError: If the pattern does not fit the shape.
    """
    grid = pattern.grid(shape)
    if isinstance(pattern, Hybrid):
        return _hybrid(pattern, grid)
    if not isinstance(pattern, NM):
        nested = pattern.nested if isinstance(pattern, Block) else None
        nested_density = 1.0 if nested is None else nested.density
        return pattern.density * nested_density * grid.rows * grid.cols
    return float(
        sum(count * _crop_capacity(pattern, grid, height, width) for height, width, count in _tile_sizes(grid))
    )


def _tile_sizes(grid: Grid) -> list[tuple[int, int, int]]:
    """Return height, width and count of the tiles of each kind.

    The kinds are: whole, cropped at the bottom, cropped at the right, and cropped in the corner. If no tile is cropped
    at the bottom, the height of such tiles is 0; likewise for the width.
    """
    whole_down, cropped_height = divmod(grid.rows, grid.tile_rows)
    whole_across, cropped_width = divmod(grid.cols, grid.tile_cols)
    return [
        (grid.tile_rows, grid.tile_cols, whole_down * whole_across),
        (cropped_height, grid.tile_cols, whole_across),
        (grid.tile_rows, cropped_width, whole_down),
        (cropped_height, cropped_width, 1),
    ]


def _hybrid(pattern: Hybrid, grid: Grid) -> float:
    """Return what all blocks keep under the inner pattern, plus the gains of the blocks that gain most if dense."""
    remaining_dense, kept_entries = pattern.dense_blocks(grid), 0.0
    gains: list[tuple[float, int]] = []
    for height, width, count in _tile_sizes(grid):
        if height * width * count == 0:
            continue
        is_edge = (height, width) != (grid.tile_rows, grid.tile_cols)
        entries = float(height * width)
        inner_kept = entries if is_edge and pattern.ragged == "dense" else capacity(pattern.inner, (height, width))
        kept_entries += count * inner_kept
        gains.append((entries - inner_kept, count))
    for gain, count in sorted(gains, reverse=True):
        dense_count = min(remaining_dense, count)
        kept_entries += dense_count * gain
        remaining_dense -= dense_count
    return kept_entries


def _crop_capacity(pattern: NM, grid: Grid, height: int, width: int) -> int:
    """Return the largest number of entries that a tile keeps inside its first `height` rows and `width` columns."""
    if pattern.ragged == "dense" and (height, width) != (grid.tile_rows, grid.tile_cols):
        return height * width
    tile = pattern.tile
    by_rows = height * min(tile.row_keep, width)
    if tile.separable:
        return by_rows
    most = min(by_rows, width * min(tile.col_keep, height))
    if not tile.at_most:
        padding_cols, padding_rows = tile.cols - width, tile.rows - height
        # Each padding row keeps at least `row_keep - padding_cols` entries in the columns of the crop.
        most = min(most, width * tile.col_keep - padding_rows * (tile.row_keep - padding_cols))
    return most
