"""Keeps the best units (blocks, channels) under disjoint budgets: under each, those with the largest exact values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from masksmith._panels import Bools, Doubles

from .unit_values import Indices, UnitValues
from .violations import order_violation


@dataclass(frozen=True, slots=True)
class KeptUnits:
    """The kept units, and the proof that they are the best.

    Attributes:
        mask: `[rows, columns]` of the grid of units, True = kept.
        violations: Of each budget, an upper bound on what the kept units lose to the best ones; `[1, 1]` for one
            budget, `[rows, 1]` for budgets of rows, `[1, columns]` for budgets of columns.
        solver: Name of the solver that selected the units.
    """

    mask: Bools
    violations: Doubles
    solver: str = "threshold"


def best_of_all(values: UnitValues, keep: int) -> KeptUnits:
    """Keep the `keep` units with the largest values, ties to the lowest row-major index."""
    kept = _best_of_lines(values, np.arange(values.rounded.size).reshape(1, -1), [keep])
    return KeptUnits(kept.mask, kept.violations.reshape(1, 1))


def best_of_rows(values: UnitValues, budgets: Sequence[int]) -> KeptUnits:
    """Keep in every row as many units as its budget says: those with the largest values, ties to the lowest index."""
    kept = _best_of_lines(values, np.arange(values.rounded.size).reshape(values.rounded.shape), budgets)
    return KeptUnits(kept.mask, kept.violations[:, None])


def best_of_cols(values: UnitValues, budgets: Sequence[int]) -> KeptUnits:
    """Keep in every column as many units as its budget says, as `best_of_rows` does."""
    kept = _best_of_lines(values, np.arange(values.rounded.size).reshape(values.rounded.shape).T, budgets)
    return KeptUnits(kept.mask, kept.violations[None, :])


def _best_of_lines(values: UnitValues, lines: Indices, budgets: Sequence[int]) -> KeptUnits:
    """Keep the best units under each budget; a row of `lines` has the flat indices of the units that share a budget."""
    mask = np.zeros(values.rounded.size, np.bool_)
    violations = np.zeros(len(lines))
    for number, (line, keep) in enumerate(zip(lines, budgets, strict=True)):
        mask[_largest(values, line, keep)] = True
        violations[number] = order_violation(values, line, mask[line])
    return KeptUnits(mask.reshape(values.rounded.shape), violations)


def _largest(values: UnitValues, line: Indices, keep: int) -> Indices:
    """Return the `keep` units of a line with the largest values; of equal ones, the first of the line."""
    if keep == 0:
        return line[:0]
    rounded = values.rounded.reshape(-1)[line]
    threshold = float(np.partition(rounded, len(line) - keep)[len(line) - keep])
    is_close = values.close_to(threshold, line)
    above, close = line[(rounded > threshold) & ~is_close], line[is_close]
    missing = keep - len(above)
    # If the threshold is 0, all close units are 0, so their order is known.
    if missing < len(close) and values.tolerance and threshold:
        close = close[np.argsort(-values.exact(close), kind="stable")]  # Of equal units, the first ones stay first.
    return np.concatenate([above, close[:missing]])
