"""Device functions that one thread executes alone, on single numbers or on a line or tile in shared memory."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from masksmith.cuda.jit import device, wrap_int32
from masksmith.kernels.dual_ascent.simd.lanes import MAX_DUAL, MAX_EXPONENT, MIN_EXPONENT, SCORE_BITS

ROUNDER = 1.5 * 2.0**52
"""Doubles from 2^52 to 2^53 are integers: adding and then subtracting this rounds a double of magnitude below 2^51."""


@device
def threshold_update(high: int, low: int, old: int, floor: int, over_relaxation_mask: int) -> int:
    """Return a line's new dual: half-way between `low` and `high`, rounded up, or `floor` if that is higher.

    `high` and `low` are the pair of the line; see `lines.pair`. If `over_relaxation_mask` is -1, half of the change
    from the dual `old` is added once more before the result is compared with `floor`; if it is 0, nothing is added.
    """
    centre = wrap_int32(high + low + 1) >> 1
    drift = wrap_int32(centre - old) >> 1
    return max(wrap_int32(centre + (drift & over_relaxation_mask)), floor)


@device
def is_balanced(
    x: Any, first: int, step: int, duals: Any, lane: int, lanes: int, size: int, own: int, floor: int, keep: int
) -> bool:  # fmt: skip
    """Return whether a line keeps `keep` entries, or fewer if its dual `own` equals `floor`.

    Entry p of the line is `x[first + p * step]`; the dual of the line that crosses the line there is
    `duals[p * lanes + lane]`. The entry is kept if the entry minus this dual is at least `own`. Returns False if the
    magnitude of `own` is `MAX_DUAL` or more.
    """
    total = 0
    for p in range(size):
        total += wrap_int32(x[first + p * step] - duals[p * lanes + lane]) >= own
    balanced = total == keep or (total < keep and own == floor)
    return balanced and own < MAX_DUAL and own > -MAX_DUAL


@device
def exponent_of(peak: float) -> int:
    """Return e for which `2^26 <= peak * 2^e < 2^27`, or `MAX_EXPONENT` if that is smaller; 0 for a peak of 0."""
    if peak > 0.0:
        return min(SCORE_BITS - math.frexp(peak)[1], MAX_EXPONENT)
    return 0


@device
def unit_of(exponent: int) -> float:
    """Return `2^-exponent`, the unit of quantised duals; 0 if float64 cannot represent the duals."""
    return math.ldexp(1.0, -int(exponent)) if exponent > MIN_EXPONENT else 0.0


@device
def equalise_minima(u: Any, v: Any, lane: int, lanes: int, rows: int, cols: int) -> bool:
    """Shift duals, in place, until the minima of `u` and of `v` differ by 1 at most; return whether both are >= 0.

    Adding a constant to all row duals u and subtracting it from all column duals v changes no sum u + v. A mask that
    fills every budget and has non-negative duals is optimal under at-most budgets, too.
    """
    low_u, low_v = u[lane], v[lane]
    for i in range(1, rows):
        low_u = min(low_u, u[i * lanes + lane])
    for j in range(1, cols):
        low_v = min(low_v, v[j * lanes + lane])
    delta = wrap_int32(low_v - low_u) >> 1
    for i in range(rows):
        u[i * lanes + lane] = wrap_int32(u[i * lanes + lane] + delta)
    for j in range(cols):
        v[j * lanes + lane] = wrap_int32(v[j * lanes + lane] - delta)
    return np.int64(low_u) + np.int64(low_v) >= 0


@device
def nearest(value: float) -> float:
    """Round to the nearest integer, ties to even, like `numpy.rint`; values of magnitude 2^51 or more are unchanged."""
    return (value + ROUNDER) - ROUNDER if abs(value) < 2.0**51 else value


@device
def quantise_dual(dual: float, unit: float, non_negative: bool) -> int:
    """Return `round(dual / unit)`, clipped to within `MAX_DUAL / 2`, and to 0 or more if `non_negative`.

    Returns 0 for a unit of 0.
    """
    low = 0.0 if non_negative else -float(MAX_DUAL // 2)
    rounded = nearest(dual / unit) if unit > 0.0 else 0.0
    return np.int32(min(max(rounded, low), float(MAX_DUAL // 2)))
