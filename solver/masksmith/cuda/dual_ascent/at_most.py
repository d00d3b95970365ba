"""At-most fill on the device: duals must be non-negative, and 0 on every row or column that is not full."""

from __future__ import annotations

from typing import Any

import numpy as np

from masksmith.cuda.jit import device, wrap_int32


@device
def count_used(x: Any, first: int, step: int, count: int) -> int:
    """Return the number of kept entries (lowest bit set) of a line: `count` words of `x` from `first`, `step` apart."""
    used = np.int32(0)
    for p in range(count):
        used += x[first + p * step] & np.int32(1)
    return used


@device
def used_or_full(y: int, floor: int, used: int, keep: int) -> int:
    """Return how many entries of a column count as kept: all `keep` if its dual is above its floor, else `used`.

    A column with a dual above its floor counts as full because augmenting paths will fill it. `y` is the negated dual.
    """
    return keep if y != -floor else used


@device
def lower_outer_dual(
    u: Any, y: Any, outer: Any, row_floor: Any, col_floor: Any, row_used: Any, col_used: Any, lane: int, lanes: int,
    rows: int, cols: int, row_keep: int, col_keep: int,
) -> None:  # fmt: skip
    """Lower the dual of the outer node, which shifts all floors; then make the duals of one tile obey these floors.

    Duals of rows that are not full are lowered to their floor, and column duals (negated in `y`) are raised to theirs.
    All changes are in place; `kernels.dual_ascent.at_most.lower_outer_dual` describes the steps.
    """
    low = outer[lane]
    for i in range(rows):
        low = min(low, wrap_int32(u[i * lanes + lane] - row_floor[i * lanes + lane]))
    for j in range(cols):
        if col_used[j * lanes + lane] < col_keep:
            low = min(low, wrap_int32(y[j * lanes + lane] + col_floor[j * lanes + lane]))
    for i in range(rows):
        at = i * lanes + lane
        if row_used[at] < row_keep and u[at] > low + row_floor[at]:
            u[at] = low + row_floor[at]
    for j in range(cols):
        at = j * lanes + lane
        if y[at] > low - col_floor[at]:
            y[at] = low - col_floor[at]
    outer[lane] = low


@device
def is_valid_dual(dual: float, used: int, keep: int) -> bool:
    """Return whether a dual is non-negative, and 0 if its line is not full."""
    return not (dual < 0.0 or (dual > 0.0 and used < keep))


@device
def shift_duals(u: Any, v: Any, lane: int, lanes: int, rows: int, cols: int) -> bool:
    """Shift duals, in place, so that the smallest column dual is 0; return whether no row dual is negative then."""
    low = v[lane]
    for j in range(1, cols):
        low = min(low, v[j * lanes + lane])
    valid = True
    for i in range(rows):
        u[i * lanes + lane] += low
        valid = valid and u[i * lanes + lane] >= 0.0
    for j in range(cols):
        v[j * lanes + lane] -= low
    return valid
