"""Finds the entries of a tensor that a tile of its pattern is made of."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from masksmith.layouts import Layout, default_axes
from masksmith.patterns import TilePattern
from masksmith_client.submission.streamed_tensor import BoolMask

Index = tuple[int, ...]


def first_entry(entries: BoolMask, pattern: TilePattern, layout: Layout | None, matrix: int, tile: Index) -> Index:
    """Return the index of the first entry in a tile that is true.

    Args:
        entries: The tensor's non-zeros.
        pattern: What is checked, which cuts each matrix into tiles.
        layout: How the tensor is made of matrices; None: one `[out, in, *kernel]`.
        matrix: Number of the matrix, or of the part of one, in the order in which they are checked.
        tile: Tile row and tile column.
    """
    layout = layout or Layout(default_axes(entries.shape))
    return next(index for index in _tile(entries.shape, pattern, layout, matrix, tile) if entries[index])


def _tile(shape: Index, pattern: TilePattern, layout: Layout, matrix: int, tile: Index) -> Iterator[Index]:
    """Yield the entries of a tile row by row; where the pattern runs along `out`, its rows are the matrix's columns."""
    ranges = layout.row_ranges(pattern, shape)
    number, part = divmod(matrix, len(ranges))
    first, last = ranges[part]
    _, channels, *kernel = layout.matrix_shape(shape)
    stack = [int(place) for place in np.unravel_index(number, (1, *layout.stack_shape(shape)))][1:]
    cols = int(np.prod(kernel, initial=channels))
    lengths = (last - first, cols) if pattern.axis == "in" else (cols, last - first)
    (top, left), (rows, across) = tile, (pattern.tile.rows, pattern.tile.cols)
    for i in range(top * rows, min((top + 1) * rows, lengths[0])):
        for j in range(left * across, min((left + 1) * across, lengths[1])):
            row, col = (i, j) if pattern.axis == "in" else (j, i)
            *places, channel = np.unravel_index(col, (*kernel, channels))
            ordered = [*stack, first + row, int(channel), *map(int, places)]
            yield tuple(ordered[layout.order.index(dim)] for dim in range(len(shape)))
