"""Compile-time parameters of the dual-ascent kernels: a tile, its sorting networks, tiles per thread block."""

from __future__ import annotations

from dataclasses import dataclass

from masksmith.cuda.jit import SIMULATED
from masksmith.kernels.dual_ascent.integer_pass import network_size
from masksmith.patterns import TileSpec

INTEGER_PASS_BYTES, TIE_PASS_BYTES = 34 * 1024, 18 * 1024
"""Bytes of shared memory for the entries of a thread block's tiles, in the integer pass and in the tie pass.

The other bytes of the 48 KiB hold duals and work arrays.
"""
MAX_LANES = 64
"""Largest number of tiles per thread block."""
WARP = 32
"""Threads of a warp."""


@dataclass(frozen=True, slots=True)
class Shape:
    """Compile-time parameters of the dual-ascent kernels.

    Attributes:
        rows, cols: Size of a tile.
        row_keep, col_keep: Budgets of the rows and columns of a tile.
        at_most: Whether budgets are upper limits.
        row_size, col_size: Sizes of the networks that sort a row (`cols` entries, padded) and a column.
        lanes: Tiles per thread block; thread (lane, line) works on one row and one column of one tile.
        element: Dtype of the scores: `float32`, `float64`, or `bfloat16`, whose bits are passed as integers.
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
        """Places per row in shared memory; odd if a warp spans several lines, to avoid bank conflicts."""
        return self.row_size + (1 if self.lanes < WARP else 0)

    @property
    def lines(self) -> int:
        """Threads per tile."""
        return max(self.row_size, self.col_size)

    @property
    def places(self) -> int:
        """Entries of a tile in shared memory, including padding."""
        return self.col_size * self.pitch


def shape_of(tile: TileSpec, element: str, shared_bytes: int = INTEGER_PASS_BYTES) -> Shape:
    """Return the parameters for a tile, with as many lanes as fit into `shared_bytes` bytes of shared memory.

    If the length of the rows or of the columns is not the size of a network, networks of one size, at least 8, sort
    both, to limit compilations. There are at most two lanes in the simulator, because it runs each thread of the device
    as a Python thread.
    """
    row_size, col_size = network_size(tile.cols), network_size(tile.rows)
    if (row_size, col_size) != (tile.cols, tile.rows):
        row_size = col_size = max(8, row_size, col_size)
    size_and_budgets = tile.rows, tile.cols, tile.row_keep, tile.col_keep, tile.at_most
    lanes = 2 if SIMULATED else MAX_LANES
    # An entry has 4 bytes; the pitch of a row is at most `row_size + 1` entries.
    while 4 * lanes * col_size * (row_size + 1) > shared_bytes and lanes > 1:
        lanes //= 2
    return Shape(*size_and_budgets, row_size, col_size, lanes, element)
