"""Shapes: a tile with its budgets, the grid of tiles of a matrix, and the matrix view of a weight."""

from __future__ import annotations

import math
from dataclasses import dataclass

from .errors import PatternError

MAX_SIDE = 64
"""Largest side of a tile that solvers support."""


@dataclass(frozen=True, slots=True)
class TileSpec:
    """Size and budgets of each tile.

    Attributes:
        rows, cols: Size of the tile; solvers support up to 64.
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


def check_tile(tile: TileSpec, pattern: object) -> None:
    """Check that solvers support the tiles of a pattern, which may be one of the caller's own.

    Raises:
        PatternError: If a side or a budget is out of its range, or exact budgets of rows and columns contradict each
            other.
    """
    size = f"{pattern}: a tile of {tile.rows}x{tile.cols} entries"
    if not (1 <= tile.rows <= MAX_SIDE and 1 <= tile.cols <= MAX_SIDE):
        raise PatternError(f"{size}: its sides must lie between 1 and {MAX_SIDE}")
    if not (1 <= tile.row_keep <= tile.cols and 0 <= tile.col_keep <= tile.rows):
        raise PatternError(f"{size} cannot keep {tile.row_keep} in each row and {tile.col_keep} in each column")
    in_rows, in_columns = tile.rows * tile.row_keep, tile.cols * tile.col_keep
    if not (tile.separable or tile.at_most or in_rows == in_columns):
        raise PatternError(
            f"{size}: its rows keep {tile.rows}*{tile.row_keep} entries but its columns {tile.cols}*{tile.col_keep}; "
            "exact budgets need equal numbers; for limits pass at_most=True"
        )


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
