"""Budgets that are only limits, for the tiles of a block: no price may be negative, and none left where places are."""

from __future__ import annotations

from typing import Any

import numpy as np

from masksmith.cuda.jit import device, narrow


@device
def count_used(x: Any, first: int, step: int, count: int) -> int:
    """Count the kept entries of a line."""
    used = np.int32(0)
    for p in range(count):
        used += x[first + p * step] & np.int32(1)
    return used


@device
def excuse(y: int, floor: int, used: int, keep: int) -> int:
    """Count a column with a price (negated in `y`) as full: paths will fill it if it is not."""
    return keep if y != -floor else used


@device
def lower_outer(
    u: Any, y: Any, outer: Any, row_floor: Any, col_floor: Any, row_used: Any, col_used: Any, lane: int, lanes: int,
    rows: int, cols: int, row_keep: int, col_keep: int,
) -> None:  # fmt: skip
    """Keep a tile's prices at or above their floors, and at them where places stay empty; `outer` moves all floors.

    Columns come negated in `y`.
    """
    low = outer[lane]
    for i in range(rows):
        low = min(low, narrow(u[i * lanes + lane] - row_floor[i * lanes + lane]))
    for j in range(cols):
        if col_used[j * lanes + lane] < col_keep:
            low = min(low, narrow(y[j * lanes + lane] + col_floor[j * lanes + lane]))
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
def legal(price: float, used: int, keep: int) -> bool:
    """Whether a price is not negative, and 0 where places stay empty."""
    return not (price < 0.0 or (price > 0.0 and used < keep))


@device
def shift_prices(u: Any, v: Any, lane: int, lanes: int, rows: int, cols: int) -> bool:
    """Move the lowest price of columns to 0; whether no price of a row is below that then."""
    low = v[lane]
    for j in range(1, cols):
        low = min(low, v[j * lanes + lane])
    fine = True
    for i in range(rows):
        u[i * lanes + lane] += low
        fine = fine and u[i * lanes + lane] >= 0.0
    for j in range(cols):
        v[j * lanes + lane] -= low
    return fine
