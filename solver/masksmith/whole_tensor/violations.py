"""Certificate for budgets of the whole tensor: violations of complementary slackness, from scores, mask and duals.

For any duals u of rows and v of columns, a mask that satisfies its budgets is within `sum over dropped of
max(0, w - u - v)` plus `sum over kept of max(0, u + v - w)` of the optimum. `u + v` is error-free (Knuth's TwoSum) and
violations are rounded up, so that 0.0 is a proof. This module shares no code with any solver.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from masksmith._panels import Bools, Duals

ROUND_UP_FACTOR = 1 + 2.0**-40
"""Factor that exceeds the relative rounding error of a sum of violations."""


def threshold_violation(scores: npt.NDArray[Any], mask: Bools, threshold: float) -> float:
    """Return the sum of violations with `threshold` as the dual of all scores; 0.0 if the largest scores are kept."""
    wrong = np.where(mask, scores < threshold, scores > threshold)
    if not wrong.any():
        return 0.0
    return float(np.abs(scores[wrong].astype(np.float64) - threshold).sum() * ROUND_UP_FACTOR)


def unit_violations(scores: Duals, mask: Bools, u: Duals, v: Duals) -> Duals:
    """Return each unit's violation; the duals broadcast to the shape of `scores`."""
    u, v = np.broadcast_arrays(u, v)
    total = u + v
    rounded_v = total - u
    rounding_error = (u - (total - rounded_v)) + (v - rounded_v)
    residual = scores - total
    # If w differs from the rounded u + v, the sign of their difference is exact, since rounding is monotone.
    signed_residual = np.where(residual == 0.0, -rounding_error, residual)
    wrong = np.where(mask, signed_residual < 0.0, signed_residual > 0.0)
    violations: Duals = np.where(wrong, (np.abs(residual) + np.abs(rounding_error)) * ROUND_UP_FACTOR, 0.0)
    return violations
