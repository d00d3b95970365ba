"""Column orders for transposable N:M: swaps proposed by the tiles' duals, and accepted by solving the tiles again."""

from __future__ import annotations

import itertools
import math

import numpy as np
import numpy.typing as npt

from masksmith._solution import Solution
from masksmith._solve import solve
from masksmith.kernels.column_swaps import column_values
from masksmith.patterns import NM

from .time_limit import TimeLimit

Doubles = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

CHUNK_WORK = 1e8
"""Limit of the product of rows, columns and tile columns of a chunk; wider layers are searched in several chunks.

A chunk of two tile columns may exceed it.
"""

MAX_CHUNK_COLUMNS = 2**12
"""Limit of the columns of a chunk if rows are few: arrays with an entry for each pair then take 0.5 GiB together."""

MIN_GAIN = 1e-9
"""Swaps are accepted only for gains above this, relative to the score that the first order of the chunk keeps."""

PATIENCE = 10
"""Consecutive steps without an accepted swap after which the search of a chunk ends."""


def search(x: Doubles, pattern: NM, rounds: int, steps: int | None, seed: int, limit: TimeLimit) -> Ints:
    """Search for a column order with a high score under a transposable pattern.

    Each step tries the most promising swaps between disjoint pairs of tile columns, and accepts those that increase the
    score of the exact solution of these tiles; the new duals give the next proposals.

    Args:
        x: Scores, `[rows, columns]`, non-negative.
        pattern: Transposable.
        rounds: Number of rounds, each with another random division into chunks; a layer of one chunk is searched once.
        steps: Maximum number of steps in each search of a chunk; None for no limit.
        seed: Seed of the divisions.
        limit: Time limit.

    Returns:
        The columns in their new order, `[columns]`.
    """
    columns = x.shape[1]
    tile_columns = columns // pattern.m if pattern.ragged == "dense" else -(-columns // pattern.m)
    order = np.arange(columns)
    width = max(2, min(MAX_CHUNK_COLUMNS // pattern.m, int(math.sqrt(CHUNK_WORK / (len(x) * pattern.m)))))
    if tile_columns <= width:
        positions = order[: tile_columns * pattern.m].copy()
        order[positions] = positions[_climb(x[:, positions], pattern, steps, limit)]
        return order
    generator = np.random.default_rng(seed)
    for _ in range(rounds):
        shuffled = generator.permutation(tile_columns)
        for first in range(0, tile_columns, width):
            if limit.passed():
                return order
            positions = _positions(np.sort(shuffled[first : first + width]), pattern.m, columns)
            order[positions] = order[positions][_climb(x[:, order[positions]], pattern, steps, limit)]
    return order


def _positions(tile_columns: Ints, m: int, columns: int) -> Ints:
    """Return the positions of the columns in some tile columns, without the padding of the last one."""
    positions = (tile_columns[:, None] * m + np.arange(m)).ravel()
    return positions[positions < columns]


def _climb(x: Doubles, pattern: NM, steps: int | None, limit: TimeLimit) -> Ints:
    """Return an order of the columns of one chunk, improved by swaps.

    Ends when no swap is promising, after `PATIENCE` steps without a gain, or at the limit of steps or time.
    """
    if x.shape[1] == 0 or limit.passed():
        return np.arange(x.shape[1])
    state, failed_steps = _State(x, pattern), 0
    for _ in itertools.count() if steps is None else range(steps):
        pairs = state.propose()
        if not pairs or failed_steps == PATIENCE or limit.passed():
            break
        failed_steps = 0 if state.attempt(pairs) else failed_steps + 1
    return state.order


class _State:
    """State of the search of one chunk.

    Attributes:
        order: The current order of the columns, `[columns]`.
        _tile_column: Tile column of each position in the order.
        _min_gain: The gain that an accepted swap exceeds.
        _kept_scores: Score kept by each tile column.
        _values: `[columns, tile columns]`, estimated value of each column in each tile column.
        _excluded: `[columns, columns]`, pairs of columns whose swap was tried without a gain.
    """

    def __init__(self, x: Doubles, pattern: NM) -> None:
        self._x, self._pattern, columns = x, pattern, x.shape[1]
        self.order = np.arange(columns)
        self._tile_column = self.order // pattern.m
        self._excluded = np.zeros((columns, columns), np.bool_)
        solution = solve(x, pattern, keep_duals=True)
        self._kept_scores = solution.tile_objectives.sum(axis=0)
        # Above 0 even if the score kept is 0 or tiny.
        self._min_gain = MIN_GAIN * max(solution.objective, 1e-300)
        self._values = np.empty((columns, len(self._kept_scores)))
        self._update_values(np.arange(len(self._kept_scores)), solution, np.arange(len(self._kept_scores)))

    def propose(self) -> list[tuple[int, int]]:
        """Return swaps of positions with an estimated gain, best first, at most one for each tile column."""
        tile, values = self._tile_column, self._values[self.order]
        # Entry [a, b] is the gain of moving the column at position a to the tile column of position b.
        gain_of_move = values[:, tile] - values[np.arange(len(tile)), tile][:, None]
        excluded = self._excluded[np.ix_(self.order, self.order)] | (tile[:, None] == tile)
        gains = np.where(excluded, -np.inf, gain_of_move + gain_of_move.T)
        best_gain = gains.max(axis=1)
        available = np.ones(len(self._kept_scores), np.bool_)
        pairs: list[tuple[int, int]] = []
        for a in np.argsort(-best_gain, kind="stable"):
            if best_gain[a] <= self._min_gain:
                break
            b = int(gains[a].argmax())
            if available[tile[a]] and available[tile[b]]:
                pairs.append((int(a), b))
                available[[tile[a], tile[b]]] = False
        return pairs

    def attempt(self, pairs: list[tuple[int, int]]) -> bool:
        """Solve the tile columns of all swaps; accept swaps with a gain, exclude the others.

        Returns whether any swap was accepted.
        """
        new_order = self.order.copy()
        for a, b in pairs:
            new_order[[a, b]] = new_order[[b, a]]
        tile_columns = np.unique(self._tile_column[np.array(pairs)])
        columns = new_order[_positions(tile_columns, self._pattern.m, len(new_order))]
        solution = solve(self._x[:, columns], self._pattern, keep_duals=True)
        new_scores = self._kept_scores.copy()
        new_scores[tile_columns] = solution.tile_objectives.sum(axis=0)
        accepted_tile_columns: list[int] = []
        for a, b in pairs:
            both = [int(self._tile_column[a]), int(self._tile_column[b])]
            if (new_scores[both] - self._kept_scores[both]).sum() > self._min_gain:
                accepted_tile_columns += both
                self._swap(a, b)
            else:
                first, second = self.order[a], self.order[b]
                self._excluded[first, second] = self._excluded[second, first] = True
        if accepted_tile_columns:
            changed_tile_columns = np.unique(accepted_tile_columns)
            self._kept_scores[changed_tile_columns] = new_scores[changed_tile_columns]
            self._update_values(changed_tile_columns, solution, np.searchsorted(tile_columns, changed_tile_columns))
        return bool(accepted_tile_columns)

    def _swap(self, a: int, b: int) -> None:
        """Exchange the columns at positions a and b; swaps of columns in these tile columns are no longer excluded."""
        columns = self.order[np.isin(self._tile_column, [self._tile_column[a], self._tile_column[b]])]
        # Excluded swaps of these columns may have a gain in their new tile columns.
        self._excluded[columns], self._excluded[:, columns] = False, False
        self.order[[a, b]] = self.order[[b, a]]

    def _update_values(self, tile_columns: Ints, solution: Solution, positions: Ints) -> None:
        """Update the values of all columns in some tile columns, from the row duals of a solution that contains them.

        `positions` are the indices of these tile columns in the solution, which may have further ones.
        """
        assert solution.duals is not None
        assert self._pattern.n_out is not None
        duals = np.ascontiguousarray(solution.duals[0][:, positions])
        rows = duals.shape[0] * duals.shape[2]
        padded = np.zeros((rows, self._x.shape[1]))
        padded[: min(rows, len(self._x))] = self._x[:rows]
        values = np.empty((self._x.shape[1], len(tile_columns)))
        keep, at_most = self._pattern.n_out, self._pattern.fill == "at_most"
        column_values(padded, duals, keep, at_most, values, np.empty(keep))
        self._values[:, tile_columns] = values
