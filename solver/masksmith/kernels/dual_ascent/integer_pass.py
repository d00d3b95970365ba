"""Dual coordinate ascent by half-way thresholds, for 16 tiles at a time, in 32-bit integers.

A row keeps its entries with the largest scores less column duals, `w - v`. A sweep sets the row's dual u half-way
between the smallest of these numbers that the row keeps and the largest that it drops, and then sets every column dual
in the same way. Column duals are over-relaxed by one half, except in the first and the last sweep. The last half-sweep
updates rows. Without a lower bound on duals, every row then keeps its budget, or more if scores tie, so a tile is
solved if every column keeps exactly its budget. If duals are kept non-negative, a row whose dual is 0 may keep fewer
entries, so rows are checked, too. The proof holds in float64 without rounding: both duals are integers of at most 29
bits times a power of two, scores were rounded down, kept entries have `w >= u + v`, and dropped entries do not.

Tiles that are still unsolved continue in a further round, packed with other such tiles. A tile's result depends on its
own scores only: lanes are independent, and every tile gets all sweeps of each round that it takes part in.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from masksmith._panels import Bools, Duals, Matrix
from masksmith.kernels.jit import jit, jit_without_refcounts
from masksmith.kernels.tile import Budget, Order

from .simd.lanes import (
    MAX_DUAL,
    balanced_lanes,
    gather,
    quantise,
    scales,
    scatter_duals,
    scatter_mask,
    threshold_update,
)
from .simd.vectors import LANES

Lanes = npt.NDArray[np.int32]

PAD = -(1 << 29)
"""Score that pads a tile up to the size of its sorting network: never kept, and far below any threshold."""
NO_FLOOR = -(1 << 30)
"""Lower bound on duals that stands for "no bound"."""
SIZES = (4, 8, 16, 32, 64)
"""Sizes of the sorting networks."""
OF_SCORES, OF_MASK = 0, 1
"""Indices in `Starts.stride`."""


def network_size(length: int) -> int:
    """Return the size of the smallest network that sorts lines of `length` entries."""
    return next(size for size in SIZES if size >= length)


@jit
def aligned_zeros(count: int) -> Lanes:
    """Allocate zeros that begin at a cache line: vectors across two cache lines load at half the speed."""
    raw = np.zeros(count + LANES, np.int32)
    first = (-(raw.ctypes.data // 4)) % LANES
    return raw[first : first + count]


class Starts(NamedTuple):
    """Offsets of the tiles in 16 lanes.

    Attributes:
        tile: `[16]`, index of each lane's tile.
        scores, mask, rows, cols: `[16]`, offset of the tile's first entry in scores, mask, row duals and column duals.
        stride: `[2]`, entries from one row to the next: at `OF_SCORES` of the scores, at `OF_MASK` of the mask.
    """

    tile: Order
    scores: Order
    mask: Order
    rows: Order
    cols: Order
    stride: Order


@jit
def new_starts() -> Starts:
    """Allocate uninitialised offsets."""
    return Starts(
        np.empty(LANES, np.int64), np.empty(LANES, np.int64), np.empty(LANES, np.int64), np.empty(LANES, np.int64),
        np.empty(LANES, np.int64), np.empty(2, np.int64),
    )  # fmt: skip


@jit_without_refcounts
def locate(
    starts: Starts, order: Order, first: int, count: int, scores: Matrix, mask: Bools, rows: int, cols: int
) -> None:
    """Write the offsets of the tiles `order[first : first + 16]`; lanes beyond `count` repeat the last tile."""
    across = scores.shape[1] // cols
    stride, mask_stride = scores.strides[0] // scores.itemsize, mask.strides[0]
    starts.stride[OF_SCORES], starts.stride[OF_MASK] = stride, mask_stride
    t, full = order[first], first + LANES <= count
    top, left = (t // across) * rows, (t % across) * cols
    # Tiles are in ascending order: 16 of them are neighbours if the last index is the first plus 15.
    if full and order[first + LANES - 1] == t + LANES - 1 and left + LANES * cols <= scores.shape[1]:
        for lane in range(LANES):
            starts.tile[lane] = t + lane
            starts.scores[lane], starts.mask[lane] = top * stride + left, top * mask_stride + left
            starts.rows[lane], starts.cols[lane] = (t + lane) * rows, (t + lane) * cols
            left += cols
        return
    for lane in range(LANES):
        t = order[min(first + lane, count - 1)]
        top, left = (t // across) * rows, (t % across) * cols
        starts.tile[lane] = t
        starts.scores[lane], starts.mask[lane] = top * stride + left, top * mask_stride + left
        starts.rows[lane], starts.cols[lane] = t * rows, t * cols


@jit_without_refcounts
def compact_unsolved(order: Order, first: int, count: int, done: int, unsolved: int) -> int:
    """Append the tiles of 16 lanes that are not in the bit set `done` to `order[:unsolved]`; return the new length."""
    if done == (1 << LANES) - 1:
        return unsolved
    for lane in range(min(LANES, count - first)):
        if not (done >> lane) & 1:
            order[unsolved] = order[first + lane]
            unsolved += 1
    return unsolved


@jit_without_refcounts
def _quantise_duals(
    raw: Duals, scale: Matrix, rescale: Matrix, non_negative: bool, length: int, quantised: Lanes
) -> None:
    """Write `round(raw * scale * rescale)`, clipped to within `MAX_DUAL / 2` (and to 0 or more if `non_negative`)."""
    low, high = (0.0 if non_negative else -float(MAX_DUAL // 2)), float(MAX_DUAL // 2)
    for j in range(length):
        for lane in range(LANES):
            dual = np.rint(raw[j * LANES + lane] * np.float64(scale[lane]) * np.float64(rescale[lane]))
            dual = dual if dual > low else low
            quantised[j * LANES + lane] = np.int32(dual if dual < high else high)


@jit_without_refcounts
def _equalise_minima(u: Lanes, v: Lanes, rows: int, cols: int) -> int:
    """Shift duals, in place, so that rows and columns have the same minimum; return the lanes where it is not negative.

    Adding a constant to all rows and subtracting it from all columns changes no sum u + v. A mask that fills every
    budget and has non-negative duals is optimal under at-most budgets, too.
    """
    valid_lanes = 0
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
        valid_lanes |= np.int64(np.int64(low_u) + np.int64(low_v) >= 0) << lane
    return valid_lanes


@cache
def compile_integer_pass(
    row_size: int, col_size: int, row_median: bool, col_median: bool, width: int, height: int
) -> Callable[..., Any]:
    """Compile the pass for tiles of one shape.

    Args:
        row_size: Size of the network that sorts a row (`cols` entries, padded).
        col_size: Size of the network that sorts a column.
        row_median: Whether a row keeps `row_size / 2` entries, which allows a cheaper network.
        col_median: Whether a column keeps `col_size / 2` entries.
        width: Entries of a row, and column duals, copied between tile and lanes at once; divides `cols`.
        height: Row duals copied at once; divides `rows`.
    """

    @jit
    def run(
        scores: Matrix, budget: Budget, rounds: Order, warm: bool, non_negative: bool, order: Order, count: int,
        mask: Bools, row_duals: Duals, col_duals: Duals,
    ) -> int:  # fmt: skip
        """Solve the first `count` tiles of `order`.

        Moves the indices of tiles that stay unsolved to the front of `order` and returns their number.

        Args:
            scores: `[down * rows, across * cols]`.
            budget: Size and budgets of the tiles.
            rounds: Number of sweeps of each round; a round continues with the unsolved tiles of the previous one, from
                their duals.
            warm: Whether the first round starts from `col_duals` instead of 0.
            non_negative: Whether duals are kept non-negative in the first round; in later rounds they are if budgets
                are at-most. Without it, a round fills rows and columns exactly; under at-most budgets, the duals are
                then shifted so that none is negative, if possible.
            order: Indices `tile row * across + tile column`, ascending.
            count: Number of indices.
            mask: Of the shape of `scores`, written.
            row_duals: `[down * across, rows]`, written.
            col_duals: `[down * across, cols]`, read if `warm`, written.
        """
        rows, cols, row_keep, col_keep = budget.rows, budget.cols, budget.row_keep, budget.col_keep
        raw = np.empty(rows * row_size * LANES, scores.dtype)
        x, scratch = aligned_zeros(col_size * row_size * LANES), aligned_zeros(max(row_size, col_size) * LANES)
        x[:] = PAD
        u, v = aligned_zeros(col_size * LANES), aligned_zeros(row_size * LANES)
        row_floor, col_floor = aligned_zeros(col_size * LANES), aligned_zeros(row_size * LANES)
        peak, unit = np.empty(LANES, scores.dtype), np.empty(LANES)
        scale, rescale = np.empty(LANES, scores.dtype), np.empty(LANES, scores.dtype)
        dual_lanes, unused_peak = np.empty(row_size * LANES), np.zeros(LANES)
        starts, unsolved = new_starts(), count
        for sweeps in rounds:
            row_floor[:] = col_floor[:] = 0 if non_negative else NO_FLOOR
            count, unsolved = unsolved, 0
            for first in range(0, count, LANES):
                locate(starts, order, first, count, scores, mask, rows, cols)
                peak[:] = 0
                gather(scores, starts.scores, starts.stride[OF_SCORES], raw, peak, rows, cols, row_size, width)
                solved = scales(peak, scale, rescale, unit)  # Lanes that can be solved; later checks remove others.
                quantise(raw, scale, rescale, x, rows, cols, row_size)
                v[:] = 0
                if warm:
                    gather(col_duals, starts.cols, 0, dual_lanes, unused_peak, 1, cols, row_size, width)
                    _quantise_duals(dual_lanes, scale, rescale, non_negative, cols, v)
                for sweep in range(sweeps):
                    # A bit mask: -1, all bits set, to increase the change of each dual by half; else 0.
                    over_relax = np.int32(0 if sweep == 0 or sweep == sweeps - 1 else -1)
                    threshold_update(
                        x, rows, row_size, 1, v, u, row_floor, row_keep, np.int32(0), scratch, row_size, row_median
                    )
                    threshold_update(
                        x, cols, 1, row_size, u, v, col_floor, col_keep, over_relax, scratch, col_size, col_median
                    )
                threshold_update(
                    x, rows, row_size, 1, v, u, row_floor, row_keep, np.int32(0), scratch, row_size, row_median
                )
                solved &= balanced_lanes(x, cols, 1, row_size, u, v, col_floor, np.int32(col_keep), col_size)
                if non_negative:
                    solved &= balanced_lanes(x, rows, row_size, 1, v, u, row_floor, np.int32(row_keep), row_size)
                elif budget.at_most:
                    solved &= _equalise_minima(u, v, rows, cols)
                scatter_mask(x, u, v, mask, starts.mask, starts.stride[OF_MASK], rows, cols, row_size, width)
                scatter_duals(u, unit, row_duals, starts.rows, rows, height)
                scatter_duals(v, unit, col_duals, starts.cols, cols, width)
                unsolved = compact_unsolved(order, first, count, solved, unsolved)
            warm, non_negative = True, budget.at_most
        return unsolved

    return run
