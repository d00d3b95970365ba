"""Validates scores and sums them, in one pass at memory bandwidth."""

from __future__ import annotations

import numpy as np

from masksmith._panels import Matrix

from .jit import jit

STRIP = 256
"""Number of independent partial sums, which let the compiler use vectors."""


@jit
def scan(scores: Matrix) -> tuple[int, float]:
    """Validate and sum a matrix of scores.

    Returns:
        Row-major index of the first NaN, infinite or negative score (-1 if all are valid), and the sum of all scores
        in float64 (undefined if one is invalid).
    """
    values, sums, total, valid_count = scores.reshape(-1), np.zeros(STRIP), 0.0, 0
    whole = len(values) // STRIP * STRIP
    for begin in range(0, whole, STRIP):
        strip = values[begin : begin + STRIP]
        for j in range(STRIP):
            sums[j] += np.float64(strip[j])
            valid_count += np.int64((strip[j] >= 0.0) & (strip[j] < np.inf))
    for value in values[whole:]:
        total += np.float64(value)
        valid_count += np.int64((value >= 0.0) & (value < np.inf))
    if valid_count < len(values):
        return _first_invalid(scores), total
    for j in range(STRIP):
        total += sums[j]
    return -1, total


@jit
def _first_invalid(scores: Matrix) -> int:
    rows, cols = scores.shape
    for i in range(rows):
        for j in range(cols):
            if not (scores[i, j] >= 0.0 and scores[i, j] < np.inf):
                return i * cols + j
    return -1
