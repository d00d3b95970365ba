"""What kernels are made for: the size of a tile and of the networks that sort its lines, and tiles per block."""

from __future__ import annotations

from dataclasses import dataclass

from masksmith.cuda.jit import SIMULATED
from masksmith.kernels.dual_ascent.integer_pass import network_size
from masksmith.patterns import TileSpec

SWEEP_BYTES, TIE_BYTES = 34 * 1024, 18 * 1024
"""Shared memory for the entries of a block's tiles; the rest of the 48 KiB is for potentials and scratch."""
MOST_LANES = 64
WARP = 32


@dataclass(frozen=True, slots=True)
class Shape:
    """One tile size with its budgets, and how a block of threads shares out its tiles.

    Attributes:
        rows, cols: Of a tile.
        row_keep, col_keep: Budgets.
        at_most: Whether budgets are limits.
        row_size, col_size: Networks that sort a row (over columns) and a column.
        lanes: Tiles of a block; thread (lane, line) works on one line of one tile.
        element: `float32`, `float64`, or `bfloat16`, whose bits come as integers.
    """

    rows: int
    cols: int
    row_keep: int
    col_keep: int
    at_most: bool
    row_size: int
    col_size: int
    lanes: int
    element: str

    @property
    def pitch(self) -> int:
        """Places from row to row; odd where a warp spans lines, so that their words lie in different banks."""
        return self.row_size + (1 if self.lanes < WARP else 0)

    @property
    def lines(self) -> int:
        """Threads per tile."""
        return max(self.row_size, self.col_size)

    @property
    def places(self) -> int:
        """Entries of a tile in shared memory, with those that pad it."""
        return self.col_size * self.pitch


def shape_of(tile: TileSpec, element: str, space: int = SWEEP_BYTES) -> Shape:
    """Give the kernels' shape of a tile: as many lanes as fit `space` bytes."""
    across, down = network_size(tile.cols), network_size(tile.rows)
    if (across, down) != (tile.cols, tile.rows):
        across = down = max(8, across, down)
    budgets = tile.rows, tile.cols, tile.row_keep, tile.col_keep, tile.at_most
    count = 2 if SIMULATED else MOST_LANES
    while 4 * count * down * (across + 1) > space and count > 1:
        count //= 2
    return Shape(*budgets, across, down, count, element)
