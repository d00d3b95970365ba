"""Budgets that are only limits, for 16 tiles at once: no price may be negative, and none left where places are."""

from __future__ import annotations

import numpy as np

from masksmith.kernels.jit import borrow
from masksmith.kernels.tile import Budget, Floats

from .integer_pass import Lanes
from .simd.vectors import LANES


@borrow
def count_kept(tied: Lanes, rows: int, cols: int, row_size: int, row_used: Lanes, col_used: Lanes) -> None:
    """Count the kept entries of each row and column, for 16 tiles."""
    row_used[:] = 0
    col_used[:] = 0
    for i in range(rows):
        for j in range(cols):
            for lane in range(LANES):
                kept = np.int32(tied[(i * row_size + j) * LANES + lane] + np.int32(1))
                row_used[i * LANES + lane] += kept
                col_used[j * LANES + lane] += kept


@borrow
def excuse(y: Lanes, floors: Lanes, used: Lanes, length: int, keep: int) -> None:
    """Count lines with a price (negated in `y`) as full: paths will fill those that are not."""
    for at in range(length * LANES):
        if y[at] != -floors[at]:
            used[at] = keep


@borrow
def lower_outer(
    budget: Budget, u: Lanes, y: Lanes, outer: Lanes, row_floor: Lanes, col_floor: Lanes, row_used: Lanes,
    col_used: Lanes,
) -> int:  # fmt: skip
    """Keep prices at or above their floors, and at them where places stay empty; `outer` moves all floors together.

    Columns come negated in `y`. Gives the lanes where nothing had to move.
    """
    same = (1 << LANES) - 1
    for lane in range(LANES):
        old, moved = outer[lane], False
        for i in range(budget.rows):
            at = i * LANES + lane
            outer[lane] = min(outer[lane], u[at] - row_floor[at])
        for j in range(budget.cols):
            at = j * LANES + lane
            if col_used[at] < budget.col_keep:
                outer[lane] = min(outer[lane], y[at] + col_floor[at])
        for i in range(budget.rows):
            at = i * LANES + lane
            if row_used[at] < budget.row_keep and u[at] > outer[lane] + row_floor[at]:
                u[at], moved = outer[lane] + row_floor[at], True
        for j in range(budget.cols):
            at = j * LANES + lane
            if y[at] > outer[lane] - col_floor[at]:
                y[at], moved = outer[lane] - col_floor[at], True
        if moved or outer[lane] != old:
            same &= ~(1 << lane)
    return same


@borrow
def legal(budget: Budget, prices: Floats, used: Lanes, length: int, keep: int) -> int:
    """Lanes where prices are not negative, and 0 where places stay empty."""
    legal = (1 << LANES) - 1
    for i in range(length):
        for lane in range(LANES):
            price = prices[i * LANES + lane]
            if price < 0.0 or (price > 0.0 and used[i * LANES + lane] < keep):
                legal &= ~(1 << lane)
    return legal


@borrow
def shift_prices(u: Floats, v: Floats, rows: int, cols: int) -> int:
    """Move the lowest price of columns to 0; give the lanes where no price of a row is below that.

    That neither changes the mask nor any sum `u + v`: exact counts whose prices can all be made non-negative are the
    best under budgets that are only limits, too.
    """
    high = 0
    for lane in range(LANES):
        low = v[lane]
        for j in range(1, cols):
            low = min(low, v[j * LANES + lane])
        legal = True
        for i in range(rows):
            u[i * LANES + lane] += low
            legal = legal and u[i * LANES + lane] >= 0.0
        for j in range(cols):
            v[j * LANES + lane] -= low
        high |= np.int64(legal) << lane
    return high
