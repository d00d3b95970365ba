"""Keeps the best units (blocks, channels) under disjoint budgets: under each, those with the largest values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from masksmith._panels import Bools, Doubles, Duals


@dataclass(frozen=True, slots=True)
class KeptUnits:
    """The kept units, and duals that prove optimality.

    Attributes:
        mask: `[rows, columns]` of the grid of units, True = kept.
        u: Duals of rows; the shape broadcasts to that of the mask.
        v: Duals of columns; the shape broadcasts to that of the mask.
        solver: Name of the solver that selected the units.
    """

    mask: Bools
    u: Duals
    v: Duals
    solver: str = "threshold"

    def transposed(self) -> KeptUnits:
        """Return the same units with rows and columns exchanged."""
        return KeptUnits(self.mask.T, self.v.T, self.u.T, self.solver)


def best_of_all(values: Doubles, keep: int) -> KeptUnits:
    """Keep the `keep` units with the largest values, ties to the lowest row-major index."""
    mask, dual = _largest(values.reshape(-1), keep)
    return KeptUnits(mask.reshape(values.shape), np.full((1, 1), dual), np.zeros((1, 1)))


def best_of_rows(values: Doubles, budgets: Sequence[int]) -> KeptUnits:
    """Keep in every row as many units as its budget says: those with the largest values, ties to the lowest index."""
    masks, duals = zip(*(_largest(row, keep) for row, keep in zip(values, budgets, strict=True)), strict=True)
    return KeptUnits(np.array(masks), np.array(duals)[:, None], np.zeros((1, 1)))


def _largest(values: Doubles, keep: int) -> tuple[Bools, float]:
    """Return the mask of the `keep` largest values, and its dual.

    The dual is the smallest value that is kept; if `keep` is 0, the largest of all values.
    """
    if keep == 0:
        return np.zeros(len(values), np.bool_), float(values.max())
    threshold = float(np.partition(values, len(values) - keep)[len(values) - keep])
    mask: Bools = values > threshold
    mask[np.flatnonzero(values == threshold)[: keep - int(mask.sum())]] = True
    return mask, threshold
