"""Certificate of tiles: proves masks from their duals alone and shares no code with any solver.

For scores w and a mask S that meets the budgets exactly, any duals u of rows and v of columns give

    sum(S * w) <= optimum <= sum(S * w) + violation,
    violation = sum over dropped entries of max(0, w - u - v) + sum over kept entries of max(0, u + v - w),

where forced entries are left out, since they cannot change. Under at-most budgets, negative u and v count as 0, and
each row or column adds its dual times its unfilled budget. The sign of every term is exact and the sum is rounded up:
a violation of 0.0 is a proof of optimality.

`tiles_simd` checks all tiles first and certifies those with zero violation; this module handles the others.
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
def _at_least(dual: float, floor: float) -> float:
    return floor if dual < floor else dual


@inline
def _entry_violation(w: float, u: float, v: float, keep: bool) -> float:
    """Return by how much complementary slackness is violated: exactly 0.0 if it holds, else rounded away from 0.

    `error` is the exact rounding error of `total`, the rounded sum of u and v (Knuth's TwoSum). So `side` has the sign
    of `w - u - v`.
    """
    total = u + v
    part = total - u
    error = (u - (total - part)) + (v - part)
    rest = w - total
    side = rest - error
    if (side if keep else -side) >= 0.0:
        return 0.0
    return abs(rest) + abs(error)


@inline
def _sum_pairwise(sums: Duals) -> float:
    """Sum pairwise, in the order of `tiles_simd`; overwrites `sums`, whose length is a power of two."""
    size = len(sums)
    while size > 1:
        size //= 2
        for k in range(size):
            sums[k] = sums[2 * k] + sums[2 * k + 1]
    return sums[0]


@inline
def _sum_entries(
    scores: Matrix, mask: Bools, forced: Forced, u: Duals, v: Duals, floor: float, top: int, left: int, sums: Duals
) -> tuple[float, float]:
    """Return the kept score of a tile, and the sum of the violations of its free entries; `sums` is a work array."""
    entries_violation = 0.0
    sums[:] = 0.0
    for r in range(len(u)):
        row_dual = _at_least(u[r], floor)
        for c in range(len(v)):
            w, keep = np.float64(scores[top + r, left + c]), mask[top + r, left + c]
            sums[c] += w if keep else 0.0
            if not (forced.size and forced[top + r, left + c] != 0):
                entries_violation += _entry_violation(w, row_dual, _at_least(v[c], floor), keep)
    return _sum_pairwise(sums), entries_violation


@inline
def _check_budgets(
    mask: Bools, u: Duals, v: Duals, row_keep: int, col_keep: int, at_most: bool, floor: float, top: int, left: int
) -> tuple[bool, float]:
    """Return whether the budgets of a tile hold, and the sum of dual times unfilled budget over rows and columns."""
    legal, unfilled_violation = True, 0.0
    for r in range(len(u)):
        used = 0
        for c in range(len(v)):
            used += np.int64(mask[top + r, left + c])
        legal &= used == row_keep or (at_most and used < row_keep)
        unfilled_violation += _at_least(u[r], floor) * (row_keep - used) if used < row_keep else 0.0
    for c in range(len(v)):
        used = 0
        for r in range(len(u)):
            used += np.int64(mask[top + r, left + c])
        legal &= used == col_keep or (at_most and used < col_keep)
        unfilled_violation += _at_least(v[c], floor) * (col_keep - used) if used < col_keep else 0.0
    return legal, unfilled_violation


@jit
def certify(
    scores: Matrix, mask: Bools, forced: Forced, row_duals: Duals, col_duals: Duals, row_keep: int, col_keep: int,
    at_most: bool, tiles: Numbers, objective: Duals, violation: Duals, legal: Bools,
) -> None:  # fmt: skip
    """Certify tiles of a panel.

    Args:
        scores: `[down * rows, across * cols]`.
        mask: Of the shape of `scores`, True = kept.
        forced: Of the shape of `scores`, non-zero where an entry is forced; `[0, 0]` if none is.
        row_duals: `[down, across, rows]`.
        col_duals: `[down, across, cols]`.
        row_keep: Budget of each row.
        col_keep: Budget of each column.
        at_most: Whether budgets are upper limits.
        tiles: Indices of the tiles to certify, `tile row * across + tile column`.
        objective: `[down, across]`, written: score kept.
        violation: `[down, across]`, written: objective + violation is an upper bound on the score of every
            allowed mask.
        legal: `[down, across]`, written: whether the budgets hold.
    """
    rows, cols, across = row_duals.shape[2], col_duals.shape[2], row_duals.shape[1]
    padded = 1
    while padded < cols:
        padded *= 2
    sums, floor = np.empty(padded), 0.0 if at_most else -np.inf
    for at in tiles:
        i, t = at // across, at % across
        u, v = row_duals[i, t], col_duals[i, t]
        kept_score, entries_violation = _sum_entries(scores, mask, forced, u, v, floor, i * rows, t * cols, sums)
        legal[i, t], unfilled_violation = _check_budgets(
            mask, u, v, row_keep, col_keep, at_most, floor, i * rows, t * cols
        )
        objective[i, t] = kept_score
        # More than the relative rounding error of the terms and of their sum; no term is negative.
        violation[i, t] = (entries_violation + unfilled_violation) * (1.0 + EPSILON * (rows * cols + 16))
