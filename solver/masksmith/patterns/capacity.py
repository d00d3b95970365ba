"""Capacity: the largest number of entries that an allowed mask keeps."""

from __future__ import annotations

from .block import Block
from .channels import Channels
from .geometry import Grid, TileSpec
from .hybrid import Hybrid
from .pattern import Pattern
from .unstructured import Unstructured
from .vnm import VNM


def capacity(pattern: Pattern, shape: tuple[int, ...]) -> float:
    """Return the largest number of entries that an allowed mask of this shape keeps.

    The result is exact for the patterns of the library, ragged edges included; but for blocks with `balance both` and
    ragged edges it may be larger. For other patterns without tiles it is `density * entries`.

    Raises:
        PatternError: If the pattern does not fit the shape.
    """
    grid = pattern.grid(shape)
    if isinstance(pattern, Hybrid):
        return _hybrid(pattern, grid)
    if isinstance(pattern, Block):
        return float(_blocks(pattern, grid))
    if isinstance(pattern, Channels):
        channels = shape[0] if pattern.axis == "out" else shape[1]
        return float(pattern.kept(shape) * (grid.rows * grid.cols // channels))
    if isinstance(pattern, Unstructured):
        return float(pattern.kept(shape))
    tile = _tile(pattern)
    if tile is None:
        return pattern.density * grid.rows * grid.cols
    return float(
        sum(count * _crop_capacity(pattern, tile, grid, height, width) for height, width, count in _tile_sizes(grid))
    )


def _tile(pattern: Pattern) -> TileSpec | None:
    """Return a tile of a pattern: its own, or for V:N:M one whose rows keep what those of a panel keep; else None."""
    if isinstance(pattern, VNM):
        return TileSpec(pattern.v, pattern.m, pattern.n, 0)
    return getattr(pattern, "tile", None)


def _blocks(pattern: Block, grid: Grid) -> int:
    """Return what the largest blocks within the budgets keep, and under `ragged="dense"` the edge."""
    by_row, by_col, total = pattern.budgets(grid)
    block_entries = pattern.rows * pattern.cols
    if pattern.ragged == "dense" or not grid.is_ragged:
        down, across = pattern.blocks(grid)
        edge = grid.rows * grid.cols - down * across * block_entries
        nested = pattern.nested
        return edge + total * (block_entries if nested is None else int(capacity(nested, (pattern.rows, pattern.cols))))
    if by_row is None and by_col is None:
        return _largest(total, _tile_sizes(grid))
    most = [
        _largest_of_lines(budgets, lines)
        for budgets, lines in (
            (by_row, (grid.rows, pattern.rows, grid.cols, pattern.cols)),
            (by_col, (grid.cols, pattern.cols, grid.rows, pattern.rows)),
        )
        if budgets is not None
    ]
    return min(most)


def _largest(number: int, sizes: list[tuple[int, int, int]]) -> int:
    """Return the entries of a number of blocks, the largest of those with these heights, widths and counts."""
    entries = 0
    for area, count in sorted(((height * width, count) for height, width, count in sizes), reverse=True):
        entries += area * min(number, count)
        number -= min(number, count)
    return entries


def _largest_of_lines(budgets: list[int], lines: tuple[int, int, int, int]) -> int:
    """Return the entries of the largest blocks of each block row, or of each block column.

    Args:
        budgets: Number of blocks of each line.
        lines: Length of the matrix and of a block across the lines; length of the matrix and of a block along them.
    """
    length_across, block_across, length_along, block_along = lines
    heights = [min(block_across, length_across - first) for first in range(0, length_across, block_across)]
    return sum(
        height * min(budget * block_along, length_along) for height, budget in zip(heights, budgets, strict=True)
    )


def _tile_sizes(grid: Grid) -> list[tuple[int, int, int]]:
    """Return height, width and count of the tiles of each kind.

    The kinds are: whole, cropped at the bottom, cropped at the right, and cropped in the corner. If no tile is cropped
    at the bottom, the height of such tiles is 0; if none is at the right, their width is 0.
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


def _crop_capacity(pattern: Pattern, tile: TileSpec, grid: Grid, height: int, width: int) -> int:
    """Return the largest number of entries that a tile keeps inside its first `height` rows and `width` columns."""
    if pattern.ragged == "dense" and (height, width) != (grid.tile_rows, grid.tile_cols):
        return height * width
    by_rows = height * min(tile.row_keep, width)
    if tile.separable:
        return by_rows
    most = min(by_rows, width * min(tile.col_keep, height))
    if not tile.at_most:
        padding_cols, padding_rows = tile.cols - width, tile.rows - height
        # Each padding row keeps at least `row_keep - padding_cols` entries in the columns of the crop.
        most = min(most, width * tile.col_keep - padding_rows * (tile.row_keep - padding_cols))
    return most
