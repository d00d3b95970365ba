"""Shapes: a tile with its budgets, the grid of tiles of a matrix, and the matrix view of a weight."""

from __future__ import annotations

import math
from dataclasses import dataclass

from .errors import PatternError


@dataclass(frozen=True, slots=True)
class TileSpec:
    """Size and budgets of each tile.

    Attributes:
        rows, cols: Size of the tile.
        row_keep: Budget of every row: entries that it keeps.
        col_keep: Budget of every column; 0 if columns have no budget (separable patterns).
        at_most: Whether budgets are upper limits instead of exact counts.
    """

    rows: int
    cols: int
    row_keep: int
    col_keep: int
    at_most: bool = False

    @property
    def separable(self) -> bool:
        """Whether rows can be solved independently, since columns have no budgets."""
        return self.col_keep == 0


@dataclass(frozen=True, slots=True)
class Grid:
    """A matrix of `rows` x `cols` entries covered by tiles of `tile_rows` x `tile_cols`."""

    rows: int
    cols: int
    tile_rows: int
    tile_cols: int

    @property
    def down(self) -> int:
        """Tiles from top to bottom, a ragged one included."""
        return -(-self.rows // self.tile_rows)

    @property
    def across(self) -> int:
        """Tiles from left to right, a ragged one included."""
        return -(-self.cols // self.tile_cols)

    @property
    def tiles(self) -> int:
        """Number of tiles."""
        return self.down * self.across

    @property
    def is_ragged(self) -> bool:
        """Whether the last tile row or column extends beyond the matrix."""
        return bool(self.rows % self.tile_rows or self.cols % self.tile_cols)


def matrix_shape(shape: tuple[int, ...]) -> tuple[int, int]:
    """Return the matrix shape of a weight: convolutions `[out, in, *kernel]` become `[out, prod(kernel) * in]`.

    Raises:
        PatternError: If the weight has fewer than two or more than four dimensions, or one of length 0.
    """
    if not 2 <= len(shape) <= 4:
        raise PatternError(
            f"shape {list(shape)} has {len(shape)} dimension(s); a weight has two (linear) to four (2-D convolution)"
        )
    if 0 in shape:
        raise PatternError(f"shape {list(shape)} is empty: dimension {shape.index(0)} is 0")
    return shape[0], math.prod(shape[1:])
