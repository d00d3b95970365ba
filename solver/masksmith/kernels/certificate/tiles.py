"""The checker: proves masks from duals alone, sharing no code with any solver.

For a mask S that meets the budgets exactly, any duals u, v give

    sum(S * w) <= optimum <= sum(S * w) + violation,
    violation = sum over dropped entries of max(0, w - u - v) + sum over kept entries of max(0, u + v - w),

forced entries apart, which cannot change. Where budgets are upper limits, u and v must not be negative and unused
places add their price. The sign of every term is exact, the sum is rounded up: a violation of 0.0 is a proof.

`tiles_simd` passes over all tiles first and settles those with nothing to add up; this settles any.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from masksmith._panels import Bools, Duals, Forced, Matrix
from masksmith.kernels.jit import inline, jit

Numbers: TypeAlias = npt.NDArray[np.int64]

EPSILON = 2.0**-52


@inline
def _at_least(price: float, floor: float) -> float:
    return floor if price < floor else price


@inline
def _loss(w: float, u: float, v: float, keep: bool) -> float:
    """How far an entry is on the wrong side of u + v: exactly 0.0 when it is not, else rounded away from 0."""
    total = u + v
    part = total - u
    error = (u - (total - part)) + (v - part)
    rest = w - total
    side = rest - error
    if (side if keep else -side) >= 0.0:
        return 0.0
    return abs(rest) + abs(error)


@inline
def _add_up(sums: Duals) -> float:
    """Add neighbours in pairs, as lanes do; the length is a power of two."""
    size = len(sums)
    while size > 1:
        size //= 2
        for k in range(size):
            sums[k] = sums[2 * k] + sums[2 * k + 1]
    return sums[0]


@inline
def _weigh(
    scores: Matrix, mask: Bools, forced: Forced, u: Duals, v: Duals, floor: float, top: int, left: int, sums: Duals
) -> tuple[float, float]:
    """Give what a tile keeps, and the losses of its free entries."""
    wrong = 0.0
    sums[:] = 0.0
    for r in range(len(u)):
        price = _at_least(u[r], floor)
        for c in range(len(v)):
            w, keep = np.float64(scores[top + r, left + c]), mask[top + r, left + c]
            sums[c] += w if keep else 0.0
            if not (forced.size and forced[top + r, left + c] != 0):
                wrong += _loss(w, price, _at_least(v[c], floor), keep)
    return _add_up(sums), wrong


@inline
def _account(
    mask: Bools, u: Duals, v: Duals, row_keep: int, col_keep: int, at_most: bool, floor: float, top: int, left: int
) -> tuple[bool, float]:
    """Count a tile's rows and columns: whether the budgets hold, and the price of unused places."""
    legal, unused = True, 0.0
    for r in range(len(u)):
        used = 0
        for c in range(len(v)):
            used += np.int64(mask[top + r, left + c])
        legal &= used == row_keep or (at_most and used < row_keep)
        unused += _at_least(u[r], floor) * (row_keep - used) if used < row_keep else 0.0
    for c in range(len(v)):
        used = 0
        for r in range(len(u)):
            used += np.int64(mask[top + r, left + c])
        legal &= used == col_keep or (at_most and used < col_keep)
        unused += _at_least(v[c], floor) * (col_keep - used) if used < col_keep else 0.0
    return legal, unused


@jit
def certify(
    scores: Matrix, mask: Bools, forced: Forced, row_duals: Duals, col_duals: Duals, row_keep: int, col_keep: int,
    at_most: bool, tiles: Numbers, objective: Duals, violation: Duals, legal: Bools,
) -> None:  # fmt: skip
    """Certify tiles of a panel.

    Args:
        scores: `[down * rows, across * cols]`.
        mask: Likewise, True = kept.
        forced: Likewise, non-zero where an entry was not free; `[0, 0]` when all were.
        row_duals: `[down, across, rows]`.
        col_duals: `[down, across, cols]`.
        row_keep: Budget of each row.
        col_keep: Budget of each column.
        at_most: Whether budgets are upper limits.
        tiles: Which, as `tile row * across + tile column`.
        objective: Out, `[down, across]`: score kept.
        violation: Out, `[down, across]`: objective + violation bounds every allowed mask.
        legal: Out, `[down, across]`: whether the budgets hold.
    """
    rows, cols, across = row_duals.shape[2], col_duals.shape[2], row_duals.shape[1]
    padded = 1
    while padded < cols:
        padded *= 2
    sums, floor = np.empty(padded), 0.0 if at_most else -np.inf
    for at in tiles:
        i, t = at // across, at % across
        u, v = row_duals[i, t], col_duals[i, t]
        gain, wrong = _weigh(scores, mask, forced, u, v, floor, i * rows, t * cols, sums)
        allowed, unused = _account(mask, u, v, row_keep, col_keep, at_most, floor, i * rows, t * cols)
        objective[i, t], legal[i, t] = gain, allowed
        violation[i, t] = (wrong + unused) * (1.0 + EPSILON * (rows * cols + 16))
