"""What threads of a block do to the lines and tiles in shared memory; every function is one thread's part."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from masksmith.cuda.jit import device, narrow
from masksmith.kernels.dual_ascent.simd.lanes import COARSEST, FINEST, SCORE_BITS

BOUND = 1 << 28
"""Potentials beyond it could wrap around, as in `kernels.dual_ascent.simd.lanes`."""
ROUNDER = 1.5 * 2.0**52
"""Doubles of this size are integers: adding and subtracting it rounds."""


@device
def middle(high: int, low: int, old: int, floor: int, relax: int) -> int:
    """Give the potential half-way between two rests; with `relax` -1 instead of 0 it moves half as far again."""
    centre = narrow(high + low + 1) >> 1
    drift = narrow(centre - old) >> 1
    return max(narrow(centre + (drift & relax)), floor)


@device
def fits(
    x: Any, first: int, step: int, prices: Any, lane: int, lanes: int, size: int, own: int, floor: int, keep: int
) -> bool:  # fmt: skip
    """Whether a line keeps `keep` entries, or fewer where its potential is at its floor; no potential out of bounds."""
    total = 0
    for p in range(size):
        total += narrow(x[first + p * step] - prices[p * lanes + lane]) >= own
    right = total == keep or (total < keep and own == floor)
    return right and own < BOUND and own > -BOUND


@device
def exponent_of(peak: float) -> int:
    """Choose the power of two that brings a tile's largest score just below 2^27."""
    if peak > 0.0:
        return min(SCORE_BITS - math.frexp(peak)[1], FINEST)
    return 0


@device
def unit_of(exponent: int) -> float:
    """Give what one step of a potential is worth; 0 where float64 could not hold it."""
    return math.ldexp(1.0, -int(exponent)) if exponent > COARSEST else 0.0


@device
def shift(u: Any, v: Any, lane: int, lanes: int, rows: int, cols: int) -> bool:
    """Move the lowest price of rows and of columns to the same height; whether that is not below 0.

    Exact counts whose prices can all be made non-negative are the best under budgets that are only limits, too.
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
    """Round to the nearest integer, ties to even, as CPUs do."""
    return (value + ROUNDER) - ROUNDER if abs(value) < 2.0**51 else value


@device
def start_price(dual: float, unit: float, limited: bool) -> int:
    """Round a dual to the unit of its tile."""
    low = 0.0 if limited else -float(BOUND // 2)
    price = nearest(dual / unit) if unit > 0.0 else 0.0
    return np.int32(min(max(price, low), float(BOUND // 2)))
