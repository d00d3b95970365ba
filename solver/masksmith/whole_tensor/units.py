"""The best units (blocks, channels) within budgets that do not meet: the largest, by a threshold for each budget."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from masksmith._panels import Bools, Duals


@dataclass(frozen=True, slots=True)
class Choice:
    """Units kept, and the prices that prove them.

    Attributes:
        mask: `[down, across]`, True = kept.
        u: Prices of rows, broadcasting to the mask.
        v: Prices of columns, likewise.
        solver: What found it.
    """

    mask: Bools
    u: Duals
    v: Duals
    solver: str = "threshold"

    def turned(self) -> Choice:
        """Swap rows and columns."""
        return Choice(self.mask.T, self.v.T, self.u.T, self.solver)


def best_of_all(worth: Duals, keep: int) -> Choice:
    """Keep the largest units, ties to the lowest row-major index."""
    mask, price = _largest(worth.reshape(-1), keep)
    return Choice(mask.reshape(worth.shape), np.full((1, 1), price), np.zeros((1, 1)))


def best_of_rows(worth: Duals, budgets: Sequence[int]) -> Choice:
    """Keep the largest units of every row."""
    found = [_largest(row, keep) for row, keep in zip(worth, budgets, strict=True)]
    prices = np.array([[price] for _, price in found])
    return Choice(np.array([mask for mask, _ in found]), prices, np.zeros((1, 1)))


def _largest(worth: Duals, keep: int) -> tuple[Bools, float]:
    if keep == 0:
        return np.zeros(len(worth), np.bool_), float(worth.max())
    price = float(np.partition(worth, len(worth) - keep)[len(worth) - keep])
    mask: Bools = worth > price
    mask[np.flatnonzero(worth == price)[: keep - int(mask.sum())]] = True
    return mask, price
