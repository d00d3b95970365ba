"""Certificate for budgets of the whole tensor: violations of complementary slackness, from scores, mask and duals.

Let w be the scores, and u and v any duals of rows and columns. The score of a mask that satisfies the budgets is at
most `sum over dropped of max(0, w - u - v)` plus `sum over kept of max(0, u + v - w)` below the optimum. `u + v` is
error-free (Knuth's TwoSum) and violations are rounded up, so that 0.0 is a proof. Units of one budget need no duals: a
selection is the best one if no kept unit has a smaller exact value than a dropped one. This module shares no code with
the solvers but that of the values.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from masksmith._panels import Bools, Doubles, Duals

from .unit_values import Indices, UnitValues

ROUND_UP_FACTOR = 1 + 2.0**-40
"""Violations are multiplied by this factor; it exceeds 1 by more than their relative rounding error."""


def threshold_violation(scores: npt.NDArray[Any], mask: Bools, threshold: float) -> float:
    """Return the sum of violations if `threshold` is the dual of the only budget.

    It is 0.0 if no kept score is below the threshold, and no dropped score is above it.
    """
    wrong = np.where(mask, scores < threshold, scores > threshold)
    if not wrong.any():
        return 0.0
    return float(np.abs(scores[wrong].astype(np.float64) - threshold).sum() * ROUND_UP_FACTOR)


def order_violation(values: UnitValues, line: Indices, mask: Bools) -> float:
    """Return an upper bound on what the kept units of one budget lose to the best ones; 0.0 if no better ones exist.

    Args:
        values: Values of the units.
        line: Flat indices of the units that share the budget.
        mask: For each of them, whether it is kept.
    """
    rounded, factor = values.rounded.reshape(-1)[line], 1 + values.tolerance
    if mask.all() or not mask.any():
        return 0.0
    smallest_kept, largest_dropped = float(rounded[mask].min()), float(rounded[~mask].max())
    if largest_dropped == 0.0 or smallest_kept / factor > largest_dropped:
        return 0.0
    if values.tolerance:
        # All other kept units are above all dropped ones, and all other dropped units below all kept ones.
        close_kept = values.exact(line[mask & (rounded / factor <= largest_dropped)])
        close_dropped = values.exact(line[~mask & (rounded >= smallest_kept / factor)])
        is_best = bool(close_kept.min() >= close_dropped.max())
    else:
        is_best = smallest_kept >= largest_dropped
    if is_best:
        return 0.0
    # A dual that is at most every kept value, and upper bounds of the dropped ones.
    with np.errstate(over="ignore"):
        excess = rounded[~mask] * factor - smallest_kept / factor
    return float(excess[excess > 0.0].sum() * ROUND_UP_FACTOR)


def unit_violations(scores: Doubles, mask: Bools, u: Duals, v: Duals) -> Doubles:
    """Return the violation of each unit (block, channel); the duals broadcast to the shape of `scores`."""
    u, v = np.broadcast_arrays(u, v)
    total = u + v
    rounded_v = total - u
    rounding_error = (u - (total - rounded_v)) + (v - rounded_v)
    residual = scores - total
    # If w differs from the rounded u + v, the sign of their difference is exact, since rounding is monotone.
    signed_residual = np.where(residual == 0.0, -rounding_error, residual)
    wrong = np.where(mask, signed_residual < 0.0, signed_residual > 0.0)
    violations: Doubles = np.where(wrong, (np.abs(residual) + np.abs(rounding_error)) * ROUND_UP_FACTOR, 0.0)
    return violations
