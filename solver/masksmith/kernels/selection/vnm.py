"""Solves a row of V:N:M panels: keeps the best 4 columns of each panel, and the n largest of their entries in a row."""

from __future__ import annotations

import math

import numpy as np

from masksmith._panels import Bools, Duals
from masksmith.kernels.jit import jit

from .vnm_search import STEP, ColumnIndices, search

ROUNDING_ERROR = 2.0**-40
"""Upper bound on the relative rounding error of any sum over a panel."""


@jit
def _adds_exactly(columns: Duals) -> bool:
    """Return whether every sum of a panel's scores is exact in float64.

    All sums are exact if all scores are multiples of one power of two that is large enough for the number of terms.
    """
    largest = columns.max()
    if largest == 0.0:
        return True
    bits = math.ceil(math.log2(8.0 * columns.shape[1]))
    exponent = math.frexp(largest)[1] - 53 + bits
    if exponent < -1000 or exponent > 900:
        return False
    unit = math.ldexp(1.0, exponent)
    for column in range(columns.shape[0]):
        for row in range(columns.shape[1]):
            score = columns[column, row]
            # Less than one unit is no multiple; its quotient may underflow to 0.
            if (0.0 < score < unit) or score / unit != math.floor(score / unit):
                return False
    return True


@jit
def _keep_rows(columns: Duals, rows: int, n: int, chosen: ColumnIndices, mask: Bools) -> None:
    """Keep the n largest of the chosen columns in every row, ties to the lowest column."""
    mask[:] = False
    for row in range(rows):
        for i in range(4):
            rank = 0
            for j in range(4):
                w, other = columns[chosen[i], row], columns[chosen[j], row]
                rank += int(other > w or (other == w and j < i))
            mask[row, chosen[i]] = rank < n


@jit
def solve_strip(scores: Duals, n: int, m: int, limit: int, mask: Bools, violations: Duals) -> None:
    """Solve a row of panels.

    Args:
        scores: `[rows, across * m]`, with `across` panels side by side.
        n: Entries kept in each row of a panel.
        m: Columns of a panel.
        limit: Maximum number of column sets evaluated per panel.
        mask: `[rows, across * m]`, written.
        violations: `[across]`, written: no allowed mask of the panel keeps more than this number above what `mask`
            keeps; 0.0 proves optimality.
    """
    rows = scores.shape[0]
    columns = np.zeros((m, -(-rows // STEP) * STEP))
    chosen = np.zeros(4, np.int64)
    for panel in range(len(violations)):
        left = panel * m
        for row in range(rows):
            for column in range(m):
                columns[column, row] = scores[row, left + column]
        rounding_factor = 1.0 if _adds_exactly(columns) else 1.0 + ROUNDING_ERROR
        best, second, upper_bound = search(columns, n, limit, rounding_factor, chosen)
        # If sums are rounded, the best set is proved only if the second best is lower by more than the rounding error.
        unproved = rounding_factor > 1.0 and second * rounding_factor >= best
        violations[panel] = max(0.0, upper_bound - best) + (best * ROUNDING_ERROR if unproved else 0.0)
        _keep_rows(columns, rows, n, chosen, mask[:, left : left + m])
