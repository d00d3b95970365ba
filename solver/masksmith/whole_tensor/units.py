"""The best units (blocks, channels) within budgets that do not meet: the largest, by a threshold for each budget."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from masksmith._panels import Bools, Duals


@dataclass(frozen=True, slots=True)
class KeptUnits:
    """Units kept, and the duals that prove them.

    Attributes:
        mask: `[down, across]`, True = kept.
        u: Duals of rows, broadcasting to the mask.
        v: Duals of columns, likewise.
        solver: Name of what ran.
    """

    mask: Bools
    u: Duals
    v: Duals
    solver: str = "threshold"

    def turned(self) -> KeptUnits:
        """Swap rows and columns."""
        return KeptUnits(self.mask.T, self.v.T, self.u.T, self.solver)


def best_of_all(worth: Duals, keep: int) -> KeptUnits:
    """Keep the largest units, ties to the lowest row-major index."""
    mask, dual = _largest(worth.reshape(-1), keep)
    return KeptUnits(mask.reshape(worth.shape), np.full((1, 1), dual), np.zeros((1, 1)))


def best_of_rows(worth: Duals, budgets: Sequence[int]) -> KeptUnits:
    """Keep the largest units of every row."""
    masks, duals = zip(*(_largest(row, keep) for row, keep in zip(worth, budgets, strict=True)), strict=True)
    return KeptUnits(np.array(masks), np.array(duals)[:, None], np.zeros((1, 1)))


def _largest(worth: Duals, keep: int) -> tuple[Bools, float]:
    if keep == 0:
        return np.zeros(len(worth), np.bool_), float(worth.max())
    threshold = float(np.partition(worth, len(worth) - keep)[len(worth) - keep])
    mask: Bools = worth > threshold
    mask[np.flatnonzero(worth == threshold)[: keep - int(mask.sum())]] = True
    return mask, threshold
