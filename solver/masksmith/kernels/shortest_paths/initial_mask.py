"""First mask of a tile: every row takes its best entries at given column prices; only columns can then be wrong."""

from __future__ import annotations

import numpy as np

from masksmith.kernels.jit import borrow
from masksmith.kernels.tile import Budget, Bytes, Floats, Search, Tile

WIDE = 2.0**-24
"""Lines whose largest scores are further apart than this have no digits left in the integers of the waves."""
SWEEPS = 3


@borrow
def _nth_pair(x: Floats, count: int, nth: int) -> tuple[float, float]:
    """Give the nth and (nth+1)-th largest of `x[:count]`, infinite where there is none; sorts `x` in place."""
    for p in range(1, count):
        key, q = x[p], p - 1
        while q >= 0 and x[q] < key:
            x[q + 1] = x[q]
            q -= 1
        x[q + 1] = key
    return (x[nth - 1] if nth > 0 else np.inf), (x[nth] if nth < count else -np.inf)


@borrow
def _price(x: Floats, count: int, need: int, hint: float, floor: float) -> float:
    """Find a price that at most `need` free entries exceed and at least `need` reach (where the floor lets them)."""
    above, reach = 0, 0
    for p in range(count):
        above += np.int64(x[p] > hint)
        reach += np.int64(x[p] >= hint)
    if hint >= floor and above <= need and (reach >= need or hint == floor):
        return hint
    high, low = _nth_pair(x, count, need)
    if high == np.inf and low == -np.inf:
        return max(floor, 0.0)
    if low == -np.inf:
        return high if floor == -np.inf else floor
    if high == np.inf:
        return max(floor, low)
    # Half the distance: the sum of both could overflow, and of two neighbours would round past them.
    return max(floor, low + 0.5 * (high - low))


@borrow
def _take_ties(tile: Tile, budget: Budget, count: Floats, missing: Floats, i: int) -> None:
    """Fill row i with entries that cost nothing, first where columns still have room.

    Rows begin at different columns: constant tiles then come out balanced.
    """
    rows, cols = budget.rows, budget.cols
    begin = (i * budget.row_keep) % cols
    for careful in (True, False):
        for step in range(cols):
            if missing[i] == 0.0 or (not careful and budget.at_most and tile.u[i] == 0.0):
                break
            j = begin + step - (cols if begin + step >= cols else 0)
            at = i * cols + j
            if tile.kept[at] or not tile.free[at] or tile.w[at] - tile.v[j] != tile.u[i]:
                continue
            if careful and (count[j] >= budget.col_keep or (budget.at_most and tile.v[j] == 0.0 and tile.u[i] == 0.0)):
                continue
            tile.kept[at] = 1
            tile.kept_t[j * rows + i] = 1
            count[j] += 1
            missing[i] -= 1


@borrow
def _open_row(tile: Tile, budget: Budget, i: int, x: Floats, floor: float) -> int:
    """Keep what is forced and what is strictly above row i's price; give the places left, -1 if it cannot be filled."""
    rows, cols = budget.rows, budget.cols
    need, count = budget.row_keep, 0
    for j in range(cols):
        at = i * cols + j
        if tile.free[at]:
            x[count] = tile.w[at] - tile.v[j]
            count += 1
        else:
            need -= tile.kept[at]
    if need < 0 or (count < need and not budget.at_most):
        return -1
    price = _price(x, count, min(need, count), tile.u[i], floor)
    tile.u[i] = price
    for j in range(cols):
        at = i * cols + j
        if tile.free[at]:
            keep = np.uint8(tile.w[at] - tile.v[j] > price)
            tile.kept[at] = keep
            tile.kept_t[j * rows + i] = keep
            need -= keep
    return need


@borrow
def open_tile(tile: Tile, budget: Budget, search: Search) -> bool:
    """Set up `kept` and `u` from `v`; `u` is a hint that is kept where it fits. False if a row cannot be filled."""
    rows, cols = budget.rows, budget.cols
    x, count, missing = search.col_d, search.col_seen, search.row_d
    floor = 0.0 if budget.at_most else -np.inf
    for i in range(rows):
        left = _open_row(tile, budget, i, x, floor)
        if left < 0:
            return False
        missing[i] = left
    for j in range(cols):
        total = 0
        for i in range(rows):
            total += tile.kept_t[j * rows + i]
        count[j] = total
    for i in range(rows):
        if missing[i] > 0.0:
            _take_ties(tile, budget, count, missing, i)
    return True


@borrow
def _are_wide(w: Floats, count: int, length: int) -> bool:
    least, most = np.inf, 0.0
    for i in range(count):
        peak = 0.0
        for j in range(length):
            peak = max(peak, w[i * length + j])
        if peak > 0.0:
            least, most = min(least, peak), max(most, peak)
    return least < most * WIDE


@borrow
def _sweep(
    w: Floats, mine: Floats, others: Floats, count: int, length: int, keep: int, floor: float, x: Floats
) -> None:  # fmt: skip
    for i in range(count):
        for j in range(length):
            x[j] = w[i * length + j] - others[j]
        high, low = _nth_pair(x, length, keep)
        mine[i] = max(floor, low + 0.5 * (high - low))


@borrow
def price_wide(tile: Tile, budget: Budget, search: Search) -> None:
    """Start tiles whose rows or columns differ by orders of magnitude from half-way thresholds in float64.

    A price then has the magnitude of its own column, which leaves few entries to move, and little to round.
    """
    rows, cols = budget.rows, budget.cols
    if budget.row_keep >= cols or budget.col_keep >= rows:
        return
    if not _are_wide(tile.w, rows, cols) and not _are_wide(tile.w_t, cols, rows):
        return
    floor = 0.0 if budget.at_most else -np.inf
    tile.u[:] = 0.0
    for _ in range(SWEEPS):
        _sweep(tile.w_t, tile.v, tile.u, cols, rows, budget.col_keep, floor, search.row_d)
        _sweep(tile.w, tile.u, tile.v, rows, cols, budget.row_keep, floor, search.col_d)


@borrow
def fix_forced(tile: Tile, budget: Budget, forced: Bytes) -> bool:
    """Write forced entries (1 keep, 255 drop) into the tile; False if they alone break a budget."""
    rows, cols = budget.rows, budget.cols
    for j in range(cols):
        kept, available = 0, 0
        for i in range(rows):
            code = forced[i * cols + j]
            tile.free[i * cols + j] = tile.free_t[j * rows + i] = np.uint8(code == 0)
            tile.kept[i * cols + j] = tile.kept_t[j * rows + i] = np.uint8(code == 1)
            kept += np.int64(code == 1)
            available += np.int64(code != 255)
        if kept > budget.col_keep or (available < budget.col_keep and not budget.at_most):
            return False
    return True
