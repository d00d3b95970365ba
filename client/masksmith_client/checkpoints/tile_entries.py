"""Finds the index, in a tensor, of the first non-zero in a tile."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from masksmith.layouts import Layout, default_axes
from masksmith.patterns import TilePattern
from masksmith_client.submission.streamed_tensor import BoolMask

Index = tuple[int, ...]


def first_nonzero(
    entries: BoolMask, pattern: TilePattern, layout: Layout | None, range_number: int, tile: Index
) -> Index:
    """Return the index, in the tensor, of the first non-zero in a tile; the tile must have one.

    Args:
        entries: Array of the tensor's shape, true where the tensor is not zero.
        pattern: The pattern that is checked, which cuts each matrix into tiles.
        layout: How the tensor is made of matrices; None for one matrix `[out, in, *kernel]`.
        range_number: Number of the range of rows that the tile is in. Each range is checked on its own; a matrix that
            is checked as a whole is one range. Ranges are numbered over all matrices, from the first matrix on.
        tile: Tile row and tile column, in this range.
    """
    layout = layout or Layout(default_axes(entries.shape))
    return next(index for index in _tile_indices(entries.shape, pattern, layout, range_number, tile) if entries[index])


def _tile_indices(
    shape: tuple[int, ...], pattern: TilePattern, layout: Layout, range_number: int, tile: Index
) -> Iterator[Index]:
    """Yield the indices of the entries of a tile, row by row.

    If the pattern runs along `out`, the rows of a tile lie along the columns of the matrix.
    """
    ranges = layout.row_ranges(pattern, shape)
    matrix_number, number_in_matrix = divmod(range_number, len(ranges))
    first, last = ranges[number_in_matrix]
    _, channels, *kernel = layout.matrix_shape(shape)
    stack = [int(index) for index in np.unravel_index(matrix_number, layout.stack_shape(shape))]
    cols = int(np.prod(kernel, initial=channels))
    height, width = (last - first, cols) if pattern.axis == "in" else (cols, last - first)
    (tile_row, tile_col), tile_height, tile_width = tile, pattern.tile.rows, pattern.tile.cols
    for i in range(tile_row * tile_height, min((tile_row + 1) * tile_height, height)):
        for j in range(tile_col * tile_width, min((tile_col + 1) * tile_width, width)):
            row, col = (i, j) if pattern.axis == "in" else (j, i)
            *kernel_index, channel = np.unravel_index(col, (*kernel, channels))  # the channel is last in a matrix's row
            # Stack, out, in, kernel: the order in which `layout.order` names the tensor's dimensions.
            reordered_index = [*stack, first + row, int(channel), *map(int, kernel_index)]
            yield tuple(reordered_index[layout.order.index(dim)] for dim in range(len(shape)))
