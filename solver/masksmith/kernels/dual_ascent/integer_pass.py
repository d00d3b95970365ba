"""Sweeps: descent on the dual by half-way thresholds, for 16 tiles at a time, in integers.

`u_i` goes half-way between the last score that row i keeps and the first that it drops, given v; then columns likewise,
given u, half as far again. Rows always end with their exact number, so a tile is solved as soon as every column has its
own: both potentials are integers of at most 29 bits times a power of two, scores were rounded down, and kept entries
reach `u + v` while dropped ones do not; in float64 the proof therefore holds without any rounding.

Tiles that are not there yet go on in a further wave with other such tiles. A tile's course depends on its own scores
only: lanes never mix, and every tile gets the sweeps of each wave it is in.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from masksmith._panels import Bools, Duals, Matrix
from masksmith.kernels.jit import borrow, jit
from masksmith.kernels.tile import Budget, Order

from .simd.lanes import BOUND, fitting, gather, middle, quantise, scales, scatter_mask, scatter_prices
from .simd.vectors import LANES

Lanes = npt.NDArray[np.int32]

PAD = -(1 << 29)
"""Stands where a tile is smaller than the network that sorts its lines: never kept, never near a threshold."""
NO_FLOOR = -(1 << 30)
SIZES = (4, 8, 16, 32, 64)


def network_size(length: int) -> int:
    """Smallest network that sorts lines of `length` entries."""
    return next(size for size in SIZES if size >= length)


@jit
def aligned(count: int) -> Lanes:
    """Allocate integers that begin at a cache line: vectors across two lines load at half the speed."""
    raw = np.zeros(count + LANES, np.int32)
    first = (-(raw.ctypes.data // 4)) % LANES
    return raw[first : first + count]


class Starts(NamedTuple):
    """Where the tiles of 16 lanes begin: index, scores, mask and duals; `stride` is that of scores and mask."""

    tile: Order
    scores: Order
    mask: Order
    rows: Order
    cols: Order
    stride: Order


@jit
def new_starts() -> Starts:
    """Allocate."""
    return Starts(
        np.empty(LANES, np.int64), np.empty(LANES, np.int64), np.empty(LANES, np.int64), np.empty(LANES, np.int64),
        np.empty(LANES, np.int64), np.empty(2, np.int64),
    )  # fmt: skip


@borrow
def locate(
    starts: Starts, order: Order, first: int, count: int, scores: Matrix, mask: Bools, rows: int, cols: int
) -> None:
    """Find the tiles `order[first : first + 16]`; lanes behind the last of `count` repeat it."""
    across = scores.shape[1] // cols
    stride, mask_stride = scores.strides[0] // scores.itemsize, mask.strides[0]
    starts.stride[0], starts.stride[1] = stride, mask_stride
    t, full = order[first], first + LANES <= count
    top, side = (t // across) * rows, (t % across) * cols
    # Tiles are in ascending order: 16 of them are neighbours if the last is 15 behind the first.
    if full and order[first + LANES - 1] == t + LANES - 1 and side + LANES * cols <= scores.shape[1]:
        for lane in range(LANES):
            starts.tile[lane] = t + lane
            starts.scores[lane], starts.mask[lane] = top * stride + side, top * mask_stride + side
            starts.rows[lane], starts.cols[lane] = (t + lane) * rows, (t + lane) * cols
            side += cols
        return
    for lane in range(LANES):
        t = order[min(first + lane, count - 1)]
        top, side = (t // across) * rows, (t % across) * cols
        starts.tile[lane] = t
        starts.scores[lane], starts.mask[lane] = top * stride + side, top * mask_stride + side
        starts.rows[lane], starts.cols[lane] = t * rows, t * cols


@borrow
def keep_rest(order: Order, first: int, count: int, done: int, left: int) -> int:
    """Move the tiles of a group that are not done to `order[left:]`; give the next free place there."""
    if done == (1 << LANES) - 1:
        return left
    for lane in range(min(LANES, count - first)):
        if not (done >> lane) & 1:
            order[left] = order[first + lane]
            left += 1
    return left


@borrow
def _read_prices(raw: Duals, scale: Matrix, rescale: Matrix, limited: bool, length: int, potentials: Lanes) -> None:
    """Round prices to potentials within bounds."""
    low, high = (0.0 if limited else -float(BOUND // 2)), float(BOUND // 2)
    for j in range(length):
        for lane in range(LANES):
            price = np.rint(raw[j * LANES + lane] * np.float64(scale[lane]) * np.float64(rescale[lane]))
            price = price if price > low else low
            potentials[j * LANES + lane] = np.int32(price if price < high else high)


@borrow
def _shift(u: Lanes, v: Lanes, rows: int, cols: int) -> int:
    """Move the lowest price of rows and that of columns to the same height; give the lanes where it is not below 0.

    Adding to all rows what is taken from all columns changes no sum u + v. Exact counts whose prices can all be made
    non-negative are the best under budgets that are only limits, too.
    """
    high = 0
    for lane in range(LANES):
        low_u, low_v = u[lane], v[lane]
        for i in range(1, rows):
            low_u = min(low_u, u[i * LANES + lane])
        for j in range(1, cols):
            low_v = min(low_v, v[j * LANES + lane])
        delta = np.int32((low_v - low_u) >> 1)
        for i in range(rows):
            u[i * LANES + lane] = np.int32(u[i * LANES + lane] + delta)
        for j in range(cols):
            v[j * LANES + lane] = np.int32(v[j * LANES + lane] - delta)
        high |= np.int64(np.int64(low_u) + np.int64(low_v) >= 0) << lane
    return high


@cache
def wave(row_size: int, col_size: int, row_half: bool, col_half: bool, wide: int, tall: int) -> Callable[..., Any]:
    """Make the kernel that runs waves.

    Args:
        row_size: Network for rows, over the columns of a tile.
        col_size: Network for columns.
        row_half: Whether a row keeps half of `row_size`.
        col_half: Likewise for columns.
        wide: Entries of a row that move between tile and lanes at once.
        tall: Likewise for potentials of rows.
    """

    @jit
    def run(
        scores: Matrix, budget: Budget, waves: Order, warm: bool, limited: bool, order: Order, count: int, mask: Bools,
        row_duals: Duals, col_duals: Duals,
    ) -> int:  # fmt: skip
        """Solve the first `count` tiles of `order` as far as sweeps do; leave the others at its front, count them.

        Args:
            scores: `[down * rows, across * cols]`.
            budget: Size and budgets of its tiles.
            waves: Sweeps of each wave; it takes the tiles that the one before did not solve, where that left them.
            warm: Whether the first one starts from given duals.
            limited: Whether no price may fall below 0 in the first one; in the later ones that is for budgets that are
                limits. Else counts are exact, and at-most budgets shift prices afterwards.
            order: Indices `tile row * across + tile column`.
            count: How many of them.
            mask: As scores; out.
            row_duals: `[down * across, rows]`, start and answer.
            col_duals: `[down * across, cols]`, start and answer.
        """
        rows, cols = budget.rows, budget.cols
        raw = np.empty(rows * row_size * LANES, scores.dtype)
        x, shelf = aligned(col_size * row_size * LANES), aligned(max(row_size, col_size) * LANES)
        x[:] = PAD
        u, v = aligned(col_size * LANES), aligned(row_size * LANES)
        row_floor, col_floor = aligned(col_size * LANES), aligned(row_size * LANES)
        peak, unit = np.empty(LANES, scores.dtype), np.empty(LANES)
        scale, rescale = np.empty(LANES, scores.dtype), np.empty(LANES, scores.dtype)
        prices, best = np.empty(row_size * LANES), np.zeros(LANES)
        starts, left = new_starts(), count
        for sweeps in waves:
            row_floor[:] = col_floor[:] = 0 if limited else NO_FLOOR
            count, left = left, 0
            for first in range(0, count, LANES):
                locate(starts, order, first, count, scores, mask, rows, cols)
                peak[:] = 0
                gather(scores, starts.scores, starts.stride[0], raw, peak, rows, cols, row_size, wide)
                fits = scales(peak, scale, rescale, unit)
                quantise(raw, scale, rescale, x, rows, cols, row_size)
                v[:] = 0
                if warm:
                    gather(col_duals, starts.cols, 0, prices, best, 1, cols, row_size, wide)
                    _read_prices(prices, scale, rescale, limited, cols, v)
                for sweep in range(sweeps):
                    relax = np.int32(0 if sweep == 0 or sweep == sweeps - 1 else -1)
                    middle(
                        x, rows, row_size, 1, v, u, row_floor, budget.row_keep, np.int32(0), shelf, row_size, row_half
                    )
                    middle(x, cols, 1, row_size, u, v, col_floor, budget.col_keep, relax, shelf, col_size, col_half)
                middle(x, rows, row_size, 1, v, u, row_floor, budget.row_keep, np.int32(0), shelf, row_size, row_half)
                fits &= fitting(x, cols, 1, row_size, u, v, col_floor, np.int32(budget.col_keep), col_size)
                if limited:
                    fits &= fitting(x, rows, row_size, 1, v, u, row_floor, np.int32(budget.row_keep), row_size)
                elif budget.at_most:
                    fits &= _shift(u, v, rows, cols)
                scatter_mask(x, u, v, mask, starts.mask, starts.stride[1], rows, cols, row_size, wide)
                scatter_prices(u, unit, row_duals, starts.rows, rows, tall)
                scatter_prices(v, unit, col_duals, starts.cols, cols, wide)
                left = keep_rest(order, first, count, fits, left)
            warm, limited = True, budget.at_most
        return left

    return run
