"""Initial mask of a tile: every row keeps its best entries at the current column duals; column counts may be wrong."""

from __future__ import annotations

import numpy as np

from masksmith.kernels.jit import jit_without_refcounts
from masksmith.kernels.tile import Budget, Bytes, Floats, Search, Tile

WIDE = 2.0**-24
"""If the largest score of a row or column is less than this times that of another, its scores have few bits.

They have at most 3 bits in the integer arithmetic of dual ascent.
"""
SWEEPS = 3
"""Sweeps of float64 threshold updates that initialise the duals of such tiles."""


@jit_without_refcounts
def _nth_pair(x: Floats, count: int, nth: int) -> tuple[float, float]:
    """Return the nth and (nth+1)-th largest of `x[:count]`, +-inf where there is none; sorts `x` in place."""
    for p in range(1, count):
        key, q = x[p], p - 1
        while q >= 0 and x[q] < key:
            x[q + 1] = x[q]
            q -= 1
        x[q + 1] = key
    return (x[nth - 1] if nth > 0 else np.inf), (x[nth] if nth < count else -np.inf)


@jit_without_refcounts
def _threshold(x: Floats, count: int, need: int, hint: float, floor: float) -> float:
    """Return a threshold with at most `need` of `x[:count]` above it and at least `need` at or above it.

    Prefers `hint` if it satisfies this. The threshold is at least `floor`; at `floor`, fewer entries may reach it.
    """
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
    # Adding half the difference cannot overflow, unlike (low + high) / 2.
    return max(floor, low + 0.5 * (high - low))


@jit_without_refcounts
def _take_ties(tile: Tile, budget: Budget, count: Floats, missing: Floats, i: int) -> None:
    """Fill row i with entries that equal its threshold, first in columns that are not full.

    Each row starts at a different column, so that tiles with constant scores get balanced columns.
    """
    rows, cols = budget.rows, budget.cols
    begin = (i * budget.row_keep) % cols
    for respect_budgets in (True, False):
        for step in range(cols):
            if missing[i] == 0.0 or (not respect_budgets and budget.at_most and tile.u[i] == 0.0):
                break
            j = begin + step - (cols if begin + step >= cols else 0)
            at = i * cols + j
            if tile.kept[at] or not tile.free[at] or tile.w[at] - tile.v[j] != tile.u[i]:
                continue
            if respect_budgets and (
                count[j] >= budget.col_keep or (budget.at_most and tile.v[j] == 0.0 and tile.u[i] == 0.0)
            ):
                continue
            tile.kept[at] = 1
            tile.kept_t[j * rows + i] = 1
            count[j] += 1
            missing[i] -= 1


@jit_without_refcounts
def _initialise_row(tile: Tile, budget: Budget, i: int, x: Floats, floor: float) -> int:
    """Set row i's dual, keep its forced entries and those strictly above the dual.

    `x` is a work array. Returns the budget that is still unfilled, or -1 if the row cannot satisfy its budget.
    """
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
    dual = _threshold(x, count, min(need, count), tile.u[i], floor)
    tile.u[i] = dual
    for j in range(cols):
        at = i * cols + j
        if tile.free[at]:
            keep = np.uint8(tile.w[at] - tile.v[j] > dual)
            tile.kept[at] = keep
            tile.kept_t[j * rows + i] = keep
            need -= keep
    return need


@jit_without_refcounts
def initialise_tile(tile: Tile, budget: Budget, search: Search) -> bool:
    """Initialise `kept` and `u` of a tile from `v`; a dual in `u` that is already valid is not changed.

    Returns False if a row cannot satisfy its budget. Uses `row_d`, `col_d` and `col_seen` of `search` as work arrays.
    """
    rows, cols = budget.rows, budget.cols
    x, count, missing = search.col_d, search.col_seen, search.row_d
    floor = 0.0 if budget.at_most else -np.inf
    for i in range(rows):
        unfilled = _initialise_row(tile, budget, i, x, floor)
        if unfilled < 0:
            return False
        missing[i] = unfilled
    for j in range(cols):
        total = 0
        for i in range(rows):
            total += tile.kept_t[j * rows + i]
        count[j] = total
    for i in range(rows):
        if missing[i] > 0.0:
            _take_ties(tile, budget, count, missing, i)
    return True


@jit_without_refcounts
def _have_wide_range(w: Floats, count: int, length: int) -> bool:
    """Return whether the largest scores of two lines have a ratio below `WIDE`."""
    least, most = np.inf, 0.0
    for i in range(count):
        peak = 0.0
        for j in range(length):
            peak = max(peak, w[i * length + j])
        if peak > 0.0:
            least, most = min(least, peak), max(most, peak)
    return least < most * WIDE


@jit_without_refcounts
def _sweep(
    w: Floats, own_duals: Floats, cross_duals: Floats, count: int, length: int, keep: int, floor: float, x: Floats
) -> None:  # fmt: skip
    """Set each of `own_duals` half-way between the keep-th and the next largest of `w - cross_duals` on its line."""
    for i in range(count):
        for j in range(length):
            x[j] = w[i * length + j] - cross_duals[j]
        high, low = _nth_pair(x, length, keep)
        own_duals[i] = max(floor, low + 0.5 * (high - low))


@jit_without_refcounts
def initialise_wide_duals(tile: Tile, budget: Budget, search: Search) -> None:
    """Initialise the duals of tiles whose rows or columns differ by orders of magnitude, by float64 sweeps.

    Each dual then has the magnitude of its own line, which leaves few entries to move and small rounding errors. Other
    tiles are not changed.
    """
    rows, cols = budget.rows, budget.cols
    if budget.row_keep >= cols or budget.col_keep >= rows:
        return
    if not _have_wide_range(tile.w, rows, cols) and not _have_wide_range(tile.w_t, cols, rows):
        return
    floor = 0.0 if budget.at_most else -np.inf
    tile.u[:] = 0.0
    for _ in range(SWEEPS):
        _sweep(tile.w_t, tile.v, tile.u, cols, rows, budget.col_keep, floor, search.row_d)
        _sweep(tile.w, tile.u, tile.v, rows, cols, budget.row_keep, floor, search.col_d)


@jit_without_refcounts
def fix_forced(tile: Tile, budget: Budget, forced: Bytes) -> bool:
    """Write forced entries (`[rows * cols]`, 1 keep, 255 drop) to `kept` and `free` of the tile.

    Returns False if they alone violate the budget of a column.
    """
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
