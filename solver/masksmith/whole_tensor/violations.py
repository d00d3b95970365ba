"""Certificate for budgets of the whole tensor: violations of complementary slackness, from scores, mask and duals.

Let w be the scores, and u and v any duals of rows and columns. The score of a mask that satisfies the budgets is at
most `sum over dropped of max(0, w - u - v)` plus `sum over kept of max(0, u + v - w)` below the optimum. `u + v` is
error-free (Knuth's TwoSum) and violations are rounded up, so that 0.0 is a proof. This module shares no code with any
solver.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from masksmith._panels import Bools, Doubles, Duals

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
