"""At-most fill, 16 tiles per vector: duals must be non-negative, and 0 on every row or column that is not full."""

from __future__ import annotations

import numpy as np

from masksmith.kernels.jit import jit_without_refcounts
from masksmith.kernels.tile import Budget, Floats

from .integer_pass import Lanes
from .simd.vectors import LANES


@jit_without_refcounts
def count_kept(dropped: Lanes, rows: int, cols: int, row_size: int, row_used: Lanes, col_used: Lanes) -> None:
    """Count the kept entries of each row and column into `row_used` and `col_used`; `dropped` is 0 if kept, else -1."""
    row_used[:] = 0
    col_used[:] = 0
    for i in range(rows):
        for j in range(cols):
            for lane in range(LANES):
                kept = np.int32(dropped[(i * row_size + j) * LANES + lane] + np.int32(1))
                row_used[i * LANES + lane] += kept
                col_used[j * LANES + lane] += kept


@jit_without_refcounts
def mark_full(y: Lanes, floors: Lanes, used: Lanes, length: int, keep: int) -> None:
    """Treat lines whose dual is above its floor as full: set `used` to `keep`. Augmenting paths fill these lines later.

    Duals are negated in `y`.
    """
    for at in range(length * LANES):
        if y[at] != -floors[at]:
            used[at] = keep


@jit_without_refcounts
def lower_outer_dual(
    budget: Budget, u: Lanes, y: Lanes, outer: Lanes, row_floor: Lanes, col_floor: Lanes, row_used: Lanes,
    col_used: Lanes,
) -> int:  # fmt: skip
    """Lower the outer node's dual as far as duals and floors require, then move the duals that conflict with it.

    `outer`, the dual of the outer node, shifts all floors. Column duals are negated in `y`, so lowering `y` raises
    them. First `outer` is lowered to at most `u - row_floor` of every row, and `y + col_floor` of every column that is
    not full. Then `u` is lowered to at most `outer + row_floor` on rows that are not full, and `y` to at most
    `outer - col_floor` on all columns.

    Changes `u`, `y` and `outer` in place; returns the lanes (one bit each) where nothing changed.
    """
    unchanged = (1 << LANES) - 1
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
            unchanged &= ~(1 << lane)
    return unchanged


@jit_without_refcounts
def valid_dual_lanes(duals: Floats, used: Lanes, length: int, keep: int) -> int:
    """Return the lanes (one bit each) where every dual is non-negative, and 0 on every line that is not full."""
    valid = (1 << LANES) - 1
    for i in range(length):
        for lane in range(LANES):
            dual = duals[i * LANES + lane]
            if dual < 0.0 or (dual > 0.0 and used[i * LANES + lane] < keep):
                valid &= ~(1 << lane)
    return valid


@jit_without_refcounts
def shift_duals(u: Floats, v: Floats, rows: int, cols: int) -> int:
    """Shift duals, in place, so that the smallest column dual is 0; return the lanes where no row dual is negative.

    Adding a constant to all rows and subtracting it from all columns changes no sum `u + v`. A mask that fills every
    budget and has non-negative duals is optimal under at-most budgets, too.
    """
    valid_lanes = 0
    for lane in range(LANES):
        low = v[lane]
        for j in range(1, cols):
            low = min(low, v[j * LANES + lane])
        valid = True
        for i in range(rows):
            u[i * LANES + lane] += low
            valid = valid and u[i * LANES + lane] >= 0.0
        for j in range(cols):
            v[j * LANES + lane] -= low
        valid_lanes |= np.int64(valid) << lane
    return valid_lanes
