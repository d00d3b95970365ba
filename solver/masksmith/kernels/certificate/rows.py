"""Certificate of patterns whose only budgets are those of groups in a row (N:M), with one dual u per group.

The bound is that of `tiles` without column duals: with scores w, the violation of a group is the sum of max(0, w - u)
over dropped entries, plus the sum of max(0, u - w) over kept entries, plus, under at-most fill, u times the unfilled
budget. A first check compares scores with duals, without arithmetic, so a group that it proves has a violation of
exactly 0. Only for rows with other groups are sums computed; they are rounded up, so that the bound holds.
"""

from __future__ import annotations

import numpy as np

from masksmith._panels import Bools, Duals, Forced, Matrix
from masksmith.kernels.jit import inline, jit

EPSILON = 2.0**-52


@inline
def _check_groups(
    row: Matrix, keep: Bools, duals: Duals, cols: int, row_keep: int, objective: Duals, legal: Bools
) -> int:
    """Write each group's kept score, and whether its budget is used exactly; return how many groups are not proved.

    For at-most fill, `_sum_violations` writes again whether the budget holds.
    """
    unproved = 0
    for t in range(len(duals)):
        dual, kept_score, used, wrong = duals[t], 0.0, 0, 0
        for j in range(t * cols, (t + 1) * cols):
            kept = keep[j]
            kept_score += float(row[j]) if kept else 0.0
            used += 1 if kept else 0
            wrong += 1 if (row[j] < dual if kept else row[j] > dual) else 0
        objective[t] = kept_score
        legal[t] = used == row_keep
        unproved += 1 if used != row_keep or wrong > 0 else 0
    return unproved


@inline
def _check_groups_of_four(row: Matrix, keep: Bools, duals: Duals, row_keep: int, objective: Duals, legal: Bools) -> int:
    """Do the same as `_check_groups`, for groups of four; unrolled so that groups are vectorised."""
    unproved = 0
    for t in range(len(duals)):
        a, b, c, d = float(row[4 * t]), float(row[4 * t + 1]), float(row[4 * t + 2]), float(row[4 * t + 3])
        p, q, r, s = keep[4 * t], keep[4 * t + 1], keep[4 * t + 2], keep[4 * t + 3]
        dual = duals[t]
        objective[t] = ((a if p else 0.0) + (b if q else 0.0)) + ((c if r else 0.0) + (d if s else 0.0))
        full = (np.int32(p) + np.int32(q)) + (np.int32(r) + np.int32(s)) == row_keep
        proved = ((a >= dual) | (not p)) & ((b >= dual) | (not q)) & ((c >= dual) | (not r)) & ((d >= dual) | (not s))
        proved &= ((a <= dual) | p) & ((b <= dual) | q) & ((c <= dual) | r) & ((d <= dual) | s)
        legal[t] = full
        unproved += np.int64(not (full & proved))
    return unproved


@inline
def _sum_violations(
    row: Matrix, keep: Bools, forced: Forced, duals: Duals, cols: int, row_keep: int, at_most: bool,
    violation: Duals, legal: Bools,
) -> None:  # fmt: skip
    """Write the violation of each group of a row, rounded up, and whether its budget holds."""
    for t in range(len(duals)):
        dual = max(0.0, duals[t]) if at_most else duals[t]
        wrong, used = 0.0, 0
        for j in range(t * cols, (t + 1) * cols):
            used += 1 if keep[j] else 0
            rest = float(row[j]) - dual
            if not (forced.size and forced[j] != 0):
                wrong += max(0.0, -rest if keep[j] else rest)
        legal[t] = used == row_keep or (at_most and used < row_keep)
        wrong += max(0.0, dual) * max(0, row_keep - used)
        # More than the rounding errors of the differences and of their sum.
        violation[t] = wrong * (1.0 + EPSILON * (cols + 16))


@jit
def certify_rows(
    scores: Matrix, mask: Bools, forced: Forced, duals: Duals, cols: int, row_keep: int, at_most: bool,
    objective: Duals, violation: Duals, legal: Bools,
) -> None:  # fmt: skip
    """Certify every group of a panel.

    Args:
        scores: `[down, across * cols]`.
        mask: Of the shape of `scores`, True = kept.
        forced: Of the shape of `scores`, non-zero where an entry is forced; `[0, 0]` if none is.
        duals: `[down, across]`.
        cols: Length of a group.
        row_keep: Budget of each group.
        at_most: Whether the budget is an upper limit.
        objective: `[down, across]`, written: score kept.
        violation: `[down, across]`, written: objective + violation is an upper bound on every allowed mask.
        legal: `[down, across]`, written: whether the budget holds.
    """
    for i in range(duals.shape[0]):
        row, keep = scores[i], mask[i]
        if cols == 4:
            unproved = _check_groups_of_four(row, keep, duals[i], row_keep, objective[i], legal[i])
        elif cols == 8:  # The literal makes the length of the inlined loop a constant.
            unproved = _check_groups(row, keep, duals[i], 8, row_keep, objective[i], legal[i])
        else:
            unproved = _check_groups(row, keep, duals[i], cols, row_keep, objective[i], legal[i])
        violation[i] = 0.0
        if unproved:
            row_forced = forced[i] if forced.size else forced.reshape(-1)
            _sum_violations(row, keep, row_forced, duals[i], cols, row_keep, at_most, violation[i], legal[i])
