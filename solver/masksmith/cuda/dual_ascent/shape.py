"""Compile-time parameters of the dual-ascent kernels: a tile, its sorting networks, tiles per thread block."""

from __future__ import annotations

from dataclasses import dataclass, replace

from masksmith.cuda.jit import SIMULATED
from masksmith.kernels.dual_ascent.integer_pass import network_size
from masksmith.patterns import TileSpec

SHARED_BYTES = 48 * 1024
"""Static shared memory that a thread block may use on every device."""
MAX_LANES, MAX_THREADS = 64, 512
"""Largest numbers of tiles and of threads per thread block: each of 512 threads may have 128 registers."""
WARP = 32
"""Threads of a warp."""


@dataclass(frozen=True, slots=True)
class PassMemory:
    """Bytes of shared memory that a pass uses.

    Attributes:
        entries: Largest number of bytes for the entries of a thread block's tiles, so that several blocks fit at once.
        per_thread: Bytes of duals and work arrays for each thread.
        per_lane: Bytes of flags and exponents for each tile.
    """

    entries: int
    per_thread: int
    per_lane: int


INTEGER_PASS, TIE_PASS = PassMemory(34 * 1024, 16, 8), PassMemory(18 * 1024, 40, 16)


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

    def shared_bytes(self, memory: PassMemory) -> int:
        """Return the bytes of shared memory that a thread block of a pass uses."""
        return self.lanes * (4 * self.places + memory.per_thread * self.lines + memory.per_lane)

    def fits(self, memory: PassMemory) -> bool:
        """Return whether every device can run a thread block of a pass."""
        # The pitch of a row is at most `row_size + 1` entries of 4 bytes.
        entries = 4 * self.lanes * self.col_size * (self.row_size + 1)
        is_small = entries <= memory.entries and self.shared_bytes(memory) <= SHARED_BYTES
        return is_small and self.lanes * self.lines <= MAX_THREADS


def shape_of(tile: TileSpec, element: str, memory: PassMemory = INTEGER_PASS) -> Shape:
    """Return the parameters for a tile, with as many lanes as fit into the shared memory and registers of a device.

    If the length of the rows or of the columns is not the size of a network, networks of one size, at least 8, sort
    both, to limit compilations. There are at most two lanes in the simulator, because it runs each thread of the device
    as a Python thread.
    """
    row_size, col_size = network_size(tile.cols), network_size(tile.rows)
    if (row_size, col_size) != (tile.cols, tile.rows):
        row_size = col_size = max(8, row_size, col_size)
    size_and_budgets = tile.rows, tile.cols, tile.row_keep, tile.col_keep, tile.at_most
    shape = Shape(*size_and_budgets, row_size, col_size, 2 if SIMULATED else MAX_LANES, element)
    while shape.lanes > 1 and not shape.fits(memory):
        shape = replace(shape, lanes=shape.lanes // 2)
    return shape
