"""The checker for patterns that separate by row: one price a group, and nothing else to add to it.

As in `tiles`, with columns free: the violation is the sum of max(0, w - u) over dropped and of max(0, u - w)
over kept entries, and the price of unused places under an upper limit. Score and price are compared as they are, so
every sign is exact.
"""

from __future__ import annotations

import numpy as np

from masksmith._panels import Bools, Duals, Forced, Matrix
from masksmith.kernels.jit import inline, jit

EPSILON = 2.0**-52


@inline
def _groups(row: Matrix, keep: Bools, prices: Duals, cols: int, row_keep: int, objective: Duals, legal: Bools) -> int:
    """Add up what the groups of a row keep; give how many groups are not plainly optimal."""
    doubtful = 0
    for t in range(len(prices)):
        price, gain, used, wrong = prices[t], 0.0, 0, 0
        for j in range(t * cols, (t + 1) * cols):
            kept = keep[j]
            gain += float(row[j]) if kept else 0.0
            used += 1 if kept else 0
            wrong += 1 if (row[j] < price if kept else row[j] > price) else 0
        objective[t] = gain
        legal[t] = used == row_keep
        doubtful += 1 if used != row_keep or wrong > 0 else 0
    return doubtful


@inline
def _fours(row: Matrix, keep: Bools, prices: Duals, row_keep: int, objective: Duals, legal: Bools) -> int:
    """The same for groups of four, written out so that groups run side by side in SIMD lanes."""
    doubtful = 0
    for t in range(len(prices)):
        a, b, c, d = float(row[4 * t]), float(row[4 * t + 1]), float(row[4 * t + 2]), float(row[4 * t + 3])
        p, q, r, s = keep[4 * t], keep[4 * t + 1], keep[4 * t + 2], keep[4 * t + 3]
        price = prices[t]
        objective[t] = ((a if p else 0.0) + (b if q else 0.0)) + ((c if r else 0.0) + (d if s else 0.0))
        full = (np.int32(p) + np.int32(q)) + (np.int32(r) + np.int32(s)) == row_keep
        right = (
            ((a >= price) | (not p)) & ((b >= price) | (not q)) & ((c >= price) | (not r)) & ((d >= price) | (not s))
        )
        right &= ((a <= price) | p) & ((b <= price) | q) & ((c <= price) | r) & ((d <= price) | s)
        legal[t] = full
        doubtful += np.int64(not (full & right))
    return doubtful


@inline
def _settle(
    row: Matrix, keep: Bools, forced: Forced, prices: Duals, cols: int, row_keep: int, at_most: bool,
    violation: Duals, legal: Bools,
) -> None:  # fmt: skip
    for t in range(len(prices)):
        price = max(0.0, prices[t]) if at_most else prices[t]
        wrong, used = 0.0, 0
        for j in range(t * cols, (t + 1) * cols):
            used += 1 if keep[j] else 0
            rest = float(row[j]) - price
            if not (forced.size and forced[j] != 0):
                wrong += max(0.0, -rest if keep[j] else rest)
        legal[t] = used == row_keep or (at_most and used < row_keep)
        wrong += max(0.0, price) * max(0, row_keep - used)
        violation[t] = wrong * (1.0 + EPSILON * (cols + 16))


@jit
def certify_rows(
    scores: Matrix, mask: Bools, forced: Forced, prices: Duals, cols: int, row_keep: int, at_most: bool,
    objective: Duals, violation: Duals, legal: Bools,
) -> None:  # fmt: skip
    """Certify every group of a panel.

    Args:
        scores: `[down, across * cols]`.
        mask: Likewise, True = kept.
        forced: Likewise, non-zero where an entry was not free; `[0, 0]` when all were.
        prices: `[down, across]`.
        cols: Length of a group.
        row_keep: Budget of each group.
        at_most: Whether it is an upper limit.
        objective: Out, `[down, across]`: score kept.
        violation: Out, `[down, across]`: objective + violation bounds every allowed mask.
        legal: Out, `[down, across]`: whether the budget holds.
    """
    for i in range(prices.shape[0]):
        row, keep = scores[i], mask[i]
        if cols == 4:
            doubtful = _fours(row, keep, prices[i], row_keep, objective[i], legal[i])
        elif cols == 8:
            doubtful = _groups(row, keep, prices[i], 8, row_keep, objective[i], legal[i])
        else:
            doubtful = _groups(row, keep, prices[i], cols, row_keep, objective[i], legal[i])
        violation[i] = 0.0
        if doubtful:
            held = forced[i] if forced.size else forced.reshape(-1)
            _settle(row, keep, held, prices[i], cols, row_keep, at_most, violation[i], legal[i])
