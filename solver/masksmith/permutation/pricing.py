"""Column orders for transposable N:M: swaps proposed by the tiles' prices, and accepted by solving the tiles anew."""

from __future__ import annotations

import itertools
import math

import numpy as np
import numpy.typing as npt

from masksmith._solution import Solution
from masksmith._solve import solve
from masksmith.kernels.column_swaps import column_values
from masksmith.patterns import NM

from .deadline import Deadline

Doubles = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

CHUNK_WORK = 1e8
"""Rows times columns times tile columns that are priced together."""

LEAST = 1e-9
"""Smallest gain, as a share of what is kept, that counts as one."""

PATIENCE = 10
"""Steps in a row without any swap that pays, after which a search along one axis gives up."""


def search(x: Doubles, pattern: NM, rounds: int, steps: int | None, seed: int, deadline: Deadline) -> Ints:
    """Find a column order that keeps much under a transposable pattern.

    Each step tries the most promising swap of each pair of tile columns, all pairs disjoint, and keeps those that the
    exact solution of these tiles confirms; their new prices make the next proposals.

    Args:
        x: `[rows, columns]`, non-negative.
        pattern: Transposable.
        rounds: How often wide layers, which go chunk by chunk, are cut anew.
        steps: Steps at most (of each chunk); None goes on while it pays.
        seed: Of the cuts.
        deadline: When to stop.

    Returns:
        The columns in their new order, `[columns]`.
    """
    columns = x.shape[1]
    tiles = columns // pattern.m if pattern.ragged == "dense" else -(-columns // pattern.m)
    order = np.arange(columns)
    width = max(2, int(math.sqrt(CHUNK_WORK / (len(x) * pattern.m))))
    if tiles <= width:
        places = order[: tiles * pattern.m].copy()
        order[places] = places[_descend(x[:, places], pattern, steps, deadline)]
        return order
    generator = np.random.default_rng(seed)
    for _ in range(rounds):
        shuffled = generator.permutation(tiles)
        for first in range(0, tiles, width):
            if deadline.passed():
                return order
            places = _places(np.sort(shuffled[first : first + width]), pattern.m, columns)
            order[places] = order[places][_descend(x[:, order[places]], pattern, steps, deadline)]
    return order


def _places(tiles: Ints, m: int, columns: int) -> Ints:
    places = (tiles[:, None] * m + np.arange(m)).ravel()
    return places[places < columns]


def _descend(x: Doubles, pattern: NM, steps: int | None, deadline: Deadline) -> Ints:
    if x.shape[1] == 0 or deadline.passed():
        return np.arange(x.shape[1])
    state, fruitless = _State(x, pattern), 0
    for _ in itertools.count() if steps is None else range(steps):
        pairs = state.propose()
        if not pairs or fruitless == PATIENCE or deadline.passed():
            break
        fruitless = 0 if state.attempt(pairs) else fruitless + 1
    return state.order


class _State:
    """An order, what each tile column keeps in it, and what each column would bring to each tile column."""

    def __init__(self, x: Doubles, pattern: NM) -> None:
        self._x, self._pattern, columns = x, pattern, x.shape[1]
        self.order = np.arange(columns)
        self._tile = self.order // pattern.m
        self._refused = np.zeros((columns, columns), np.bool_)
        solution = solve(x, pattern, keep_duals=True)
        self._kept = solution.tile_objectives.sum(axis=0)
        self._least = LEAST * max(solution.objective, 1e-300)
        self._values = np.empty((columns, len(self._kept)))
        self._price(np.arange(len(self._kept)), solution, np.arange(len(self._kept)))

    def propose(self) -> list[tuple[int, int]]:
        """Give disjoint swaps of places with a priced gain, one at most for each tile column, best first."""
        tile, values = self._tile, self._values[self.order]
        there = values[:, tile] - values[np.arange(len(tile)), tile][:, None]  # [a, b]: a into the tile column of b
        barred = self._refused[np.ix_(self.order, self.order)] | (tile[:, None] == tile)
        gains = np.where(barred, -np.inf, there + there.T)
        best = gains.max(axis=1)
        free = np.ones(len(self._kept), np.bool_)
        pairs: list[tuple[int, int]] = []
        for a in np.argsort(-best, kind="stable"):
            if best[a] <= self._least:
                break
            b = int(gains[a].argmax())
            if free[tile[a]] and free[tile[b]]:
                pairs.append((int(a), b))
                free[[tile[a], tile[b]]] = False
        return pairs

    def attempt(self, pairs: list[tuple[int, int]]) -> bool:
        """Solve the tile columns of each swap anew; make the swaps that pay, remember the others; tell if any did."""
        trial = self.order.copy()
        for a, b in pairs:
            trial[[a, b]] = trial[[b, a]]
        touched = np.unique(self._tile[np.array(pairs)])
        columns = trial[_places(touched, self._pattern.m, len(trial))]
        solution = solve(self._x[:, columns], self._pattern, keep_duals=True)
        after = self._kept.copy()
        after[touched] = solution.tile_objectives.sum(axis=0)
        accepted: list[int] = []
        for a, b in pairs:
            both = [self._tile[a], self._tile[b]]
            if (after[both] - self._kept[both]).sum() > self._least:
                accepted += both
                changed = self.order[np.isin(self._tile, both)]
                self._refused[changed], self._refused[:, changed] = False, False
                self.order[[a, b]] = self.order[[b, a]]
            else:
                one, other = self.order[a], self.order[b]
                self._refused[one, other] = self._refused[other, one] = True
        if accepted:
            now = np.unique(accepted)
            self._kept[now] = after[now]
            self._price(now, solution, np.searchsorted(touched, now))
        return bool(accepted)

    def _price(self, tiles: Ints, solution: Solution, found: Ints) -> None:
        """Take over the row prices of some tile columns, `found` in the solution."""
        assert solution.duals is not None
        assert self._pattern.n_out is not None
        prices = np.ascontiguousarray(solution.duals[0][:, found])
        rows = prices.shape[0] * prices.shape[2]
        padded = np.zeros((rows, self._x.shape[1]))
        padded[: min(rows, len(self._x))] = self._x[:rows]
        values = np.empty((self._x.shape[1], len(tiles)))
        keep, at_most = self._pattern.n_out, self._pattern.fill == "at_most"
        column_values(padded, prices, keep, at_most, values, np.empty(keep))
        self._values[:, tiles] = values
