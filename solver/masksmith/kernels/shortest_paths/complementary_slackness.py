"""Check complementary slackness exactly, and centre the duals between the kept and the dropped scores.

Shortest paths leave duals at the boundary of their feasible interval, where rounded sums can violate complementary
slackness. Duals half-way between the kept and the dropped scores of a row or column leave room for rounding errors. If
all of its free entries are kept, or all are dropped, its dual may have one bound only; then it is at least 1/16 of the
largest free score away from that bound.
"""

from __future__ import annotations

import numpy as np

from masksmith.kernels.jit import inline, jit_without_refcounts
from masksmith.kernels.tile import Budget, Bytes, Floats, Tile


@inline
def two_sum(u: float, v: float) -> tuple[float, float]:
    """Return `u + v` rounded, and the exact rounding error (Knuth's TwoSum)."""
    total = u + v
    part = total - u
    return total, (u - (total - part)) + (v - part)


@jit_without_refcounts
def is_proved(tile: Tile, budget: Budget) -> bool:
    """Return whether complementary slackness holds exactly; assumes that the mask satisfies the budgets."""
    for i in range(budget.rows):
        kept = 0
        for j in range(budget.cols):
            at = i * budget.cols + j
            kept += np.int64(tile.kept[at])
            if tile.free[at]:
                total, rest = two_sum(tile.u[i], tile.v[j])
                # Only the sign of w - (u + v) matters. Rounding is monotone: if w differs from the rounded sum, that
                # difference has the exact sign; if not, the rounding error decides.
                reduced = tile.w[at] - total if tile.w[at] != total else -rest
                if (reduced if tile.kept[at] else -reduced) < 0.0:
                    return False
        if budget.at_most and (tile.u[i] < 0.0 or (tile.u[i] > 0.0 and kept < budget.row_keep)):
            return False
    return not budget.at_most or _cols_proved(tile, budget)


@jit_without_refcounts
def _cols_proved(tile: Tile, budget: Budget) -> bool:
    for j in range(budget.cols):
        kept = 0
        for i in range(budget.rows):
            kept += np.int64(tile.kept_t[j * budget.rows + i])
        if tile.v[j] < 0.0 or (tile.v[j] > 0.0 and kept < budget.col_keep):
            return False
    return True


@inline
def _middle(low: float, high: float, old: float, margin: float) -> float:
    """Return the midpoint of an interval.

    If it has one bound only, return `old`, moved if necessary so that it is at least `margin` away from the bound.
    """
    if low == -np.inf:
        return min(old, high - margin)
    if high == np.inf:
        return max(old, low + margin)
    return low + 0.5 * (high - low)


@jit_without_refcounts
def _centre_side(
    w: Floats,
    kept: Bytes,
    free: Bytes,
    own_duals: Floats,
    cross_duals: Floats,
    count: int,
    length: int,
    keep: int,
    at_most: bool,
) -> None:
    """Centre `own_duals` `[count]` for fixed `cross_duals` `[length]`; w, kept and free are `[count * length]`."""
    for i in range(count):
        low, high, used, peak = (0.0 if at_most else -np.inf), np.inf, 0, 0.0
        for j in range(length):
            at = i * length + j
            used += np.int64(kept[at])
            x = w[at] - cross_duals[j]
            if free[at]:
                peak = max(peak, w[at])
                if kept[at]:
                    high = min(high, x)
                else:
                    low = max(low, x)
        own_duals[i] = 0.0 if at_most and used < keep else _middle(low, high, own_duals[i], peak / 16.0)
        if at_most:
            own_duals[i] = max(0.0, own_duals[i])


@jit_without_refcounts
def centre(tile: Tile, budget: Budget) -> None:
    """Move every dual to the middle of its feasible interval, rows first, in place."""
    rows, cols = budget.rows, budget.cols
    _centre_side(tile.w, tile.kept, tile.free, tile.u, tile.v, rows, cols, budget.row_keep, budget.at_most)
    _centre_side(tile.w_t, tile.kept_t, tile.free_t, tile.v, tile.u, cols, rows, budget.col_keep, budget.at_most)
