"""Device functions on lines and tiles in shared memory; each call is executed by one thread."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from masksmith.cuda.jit import device, narrow
from masksmith.kernels.dual_ascent.simd.lanes import COARSEST, FINEST, SCORE_BITS

BOUND = 1 << 28
"""Largest magnitude of duals, as in `kernels.dual_ascent.simd.lanes`: beyond it 32-bit sums could wrap around."""
ROUNDER = 1.5 * 2.0**52
"""Doubles of this size have no fraction bits: adding and subtracting it rounds to an integer."""


@device
def threshold_update(high: int, low: int, old: int, floor: int, relax: int) -> int:
    """Return the dual half-way between `low` and `high`, at least `floor`; over-relaxed by half if `relax` is -1."""
    centre = narrow(high + low + 1) >> 1
    drift = narrow(centre - old) >> 1
    return max(narrow(centre + (drift & relax)), floor)


@device
def is_balanced(
    x: Any, first: int, step: int, duals: Any, lane: int, lanes: int, size: int, own: int, floor: int, keep: int
) -> bool:  # fmt: skip
    """Return whether a line keeps `keep` entries, or fewer if its dual is at its floor, and its dual is within bounds.

    An entry is kept if `x - duals >= own`.
    """
    total = 0
    for p in range(size):
        total += narrow(x[first + p * step] - duals[p * lanes + lane]) >= own
    balanced = total == keep or (total < keep and own == floor)
    return balanced and own < BOUND and own > -BOUND


@device
def exponent_of(peak: float) -> int:
    """Return the exponent e, at most `FINEST`, for which `2^26 <= peak * 2^e < 2^27`; 0 for a peak of 0."""
    if peak > 0.0:
        return min(SCORE_BITS - math.frexp(peak)[1], FINEST)
    return 0


@device
def unit_of(exponent: int) -> float:
    """Return `2^-exponent`, the unit of quantised duals; 0 if float64 cannot represent the duals."""
    return math.ldexp(1.0, -int(exponent)) if exponent > COARSEST else 0.0


@device
def equalise_minima(u: Any, v: Any, lane: int, lanes: int, rows: int, cols: int) -> bool:
    """Shift duals, in place, so that rows and columns have the same minimum; return whether it is not negative.

    A mask that fills every budget and has non-negative duals is optimal under at-most budgets, too.
    """
    low_u, low_v = u[lane], v[lane]
    for i in range(1, rows):
        low_u = min(low_u, u[i * lanes + lane])
    for j in range(1, cols):
        low_v = min(low_v, v[j * lanes + lane])
    delta = narrow(low_v - low_u) >> 1
    for i in range(rows):
        u[i * lanes + lane] = narrow(u[i * lanes + lane] + delta)
    for j in range(cols):
        v[j * lanes + lane] = narrow(v[j * lanes + lane] - delta)
    return np.int64(low_u) + np.int64(low_v) >= 0


@device
def nearest(value: float) -> float:
    """Round to the nearest integer, ties to even, like `numpy.rint`."""
    return (value + ROUNDER) - ROUNDER if abs(value) < 2.0**51 else value


@device
def quantise_dual(dual: float, unit: float, non_negative: bool) -> int:
    """Return `round(dual / unit)`, clipped to within `BOUND / 2`, and to 0 or more if `non_negative`."""
    low = 0.0 if non_negative else -float(BOUND // 2)
    rounded = nearest(dual / unit) if unit > 0.0 else 0.0
    return np.int32(min(max(rounded, low), float(BOUND // 2)))
