"""Where the tiles of a pattern are in the matrix that a tensor is stored as."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from masksmith.layouts import Layout
from masksmith.patterns import Pattern, TilePattern
from masksmith_state.jobs.shards import PlannedTensor


@dataclass(frozen=True, slots=True)
class Tiling:
    """Tiles of a stored matrix; their grid restarts at each matrix of a stack, and at each part solved separately.

    Attributes:
        tile: Rows and columns of a tile in the stored matrix.
        axes: What rows and columns of the stored matrix are: for example `(out, in)` or `(stack · in, out)`.
        matrix_rows: Stored rows of each matrix of a stack; all rows if there is no stack.
        row_starts, col_starts: Rows and columns of a matrix where the grid of tiles restarts; the first is 0.
    """

    tile: tuple[int, int]
    axes: tuple[str, str]
    matrix_rows: int
    row_starts: Sequence[int] = (0,)
    col_starts: Sequence[int] = (0,)

    @classmethod
    def of(cls, tensor: PlannedTensor, pattern: Pattern) -> Tiling:
        """Describe a tensor of a job under its pattern."""
        layout, shape = tensor.layout, tuple(tensor.shape)
        stack_count = count_leading_stacks(layout)
        if layout is None:
            return cls(_tile(pattern, shape), ("out", "in"), shape[0])
        is_transposed = layout.axes.index("in") < layout.axes.index("out")
        starts = [first for first, _ in layout.row_ranges(pattern, shape)]
        tile = _tile(pattern, layout.part_shapes(pattern, shape)[0])
        rows, cols = ("in", "out") if is_transposed else ("out", "in")
        axes = (" · ".join(["stack"] * stack_count + [rows]), cols)
        if is_transposed:
            return cls(tile[::-1], axes, shape[stack_count], col_starts=starts)
        return cls(tile, axes, shape[stack_count], row_starts=starts)


def count_leading_stacks(layout: Layout | None) -> int:
    """Return the number of leading `stack` axes; 0 without a layout."""
    axes = () if layout is None else layout.axes
    return next((index for index, axis in enumerate(axes) if axis != "stack"), 0)


def _tile(pattern: Pattern, shape: tuple[int, ...]) -> tuple[int, int]:
    """Return rows and columns of a tile in the matrix `[out, in]`; groups along `out` have a transposed grid."""
    grid = pattern.grid(shape)
    if isinstance(pattern, TilePattern) and pattern.axis == "out":
        return grid.tile_cols, grid.tile_rows
    return grid.tile_rows, grid.tile_cols
