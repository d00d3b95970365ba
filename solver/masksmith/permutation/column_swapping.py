"""Column orders for plain N:M: local search over swaps, with random perturbations to escape local optima."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from masksmith.kernels.column_swaps import climb, refresh, swap

from .time_limit import TimeLimit

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

CHUNK_WORK = 1e9
"""Limit of `rows * columns**2`: a larger layer is searched in chunks of columns, one after the other.

A chunk has as many groups as the limit allows, but at least two; only the last chunk may have fewer.
"""

MAX_CHUNK_COLUMNS = 2**13
"""Limit of the columns of a chunk if rows are few: the table of gains has an entry for each pair, 512 MiB in all."""

SWAPS_PER_CHECK = 64
"""Swaps between two checks of the time limit."""


class _Chunk:
    """Groups of columns that are searched together, with the tables of `kernels.column_swaps`.

    Args:
        x: `[rows, columns]`, scores.
        order: `[groups * m]`, the column at each place, -1 for none; has each column once; changed in place.
        m: Group length.
        keep: n, the entries kept of every m.
    """

    def __init__(self, x: Floats, order: Ints, m: int, keep: int) -> None:
        columns = x.shape[1]
        self.x, self.order, self.m, self.keep = x, order, m, keep
        self.places = np.empty(columns, np.int64)  # The inverse of `order`.
        self.places[order[order >= 0]] = np.flatnonzero(order >= 0)
        self._scores = np.empty(len(order) // m)
        # The arguments `values`, `thresholds`, `without`, `score` and `gains` of the kernels.
        self._tables = (
            np.empty(m, np.float32), np.empty((columns, len(x)), np.float32), np.empty(columns), self._scores,
            np.empty((columns, columns)),
        )  # fmt: skip
        self.refresh(range(len(order) // m))
        # Larger than rounding errors: otherwise a swap and its reverse could both seem to gain.
        self.min_gain = 1e-9 * max(1e-30, float(self._scores.sum()))

    @property
    def score(self) -> float:
        """Score kept by all groups."""
        return float(self._scores.sum())

    def refresh(self, groups: range | Ints) -> None:
        """Recompute the tables of some groups."""
        for group in groups:
            refresh(self.x, self.order, int(group), self.keep, *self._tables)

    def climb(self, limit: TimeLimit) -> None:
        """Swap columns until no swap gains more than `min_gain`, or the time limit has passed."""
        operands = (self.x, self.order, self.places, self.keep, *self._tables, self.min_gain)
        while not limit.passed():
            if climb(*operands, SWAPS_PER_CHECK) < SWAPS_PER_CHECK:
                return

    def perturb(self, generator: np.random.Generator) -> None:
        """Swap two to four random pairs of columns; a pair within one group is left out: it would change no score."""
        filled = np.flatnonzero(self.order >= 0)
        for _ in range(int(generator.integers(2, 5))):
            p, q = (int(place) for place in generator.choice(filled, 2, replace=False))
            if p // self.m != q // self.m:
                swap(self.order, self.places, p, q)
                self.refresh(np.array([p // self.m, q // self.m]))

    def restore(self, order: Ints) -> None:
        """Restore an earlier order, and the tables for it."""
        changed = np.unique(np.flatnonzero(self.order != order) // self.m)
        self.order[:] = order
        self.places[order[order >= 0]] = np.flatnonzero(order >= 0)
        self.refresh(changed)


def search(x: Floats, m: int, keep: int, escapes: int, seed: int, limit: TimeLimit) -> Ints:
    """Search for a column order with a high score under n:m along the rows.

    Args:
        x: `[rows, columns]`, non-negative.
        m: Group length; the last group may be short.
        keep: n, the entries kept of every m.
        escapes: Number of random perturbations of a local optimum. A layer that needs several chunks is not perturbed:
            it is searched in `escapes // 10` further rounds, each of which assigns the groups to chunks at random.
        seed: Seed of the random choices.
        limit: Time limit.

    Returns:
        The columns in their new order, `[columns]`.
    """
    columns = x.shape[1]
    if columns <= m:  # There is one group, which keeps the same in every order.
        return np.arange(columns)
    order = np.full(-(-columns // m) * m, -1, np.int64)
    order[:columns] = np.arange(columns)
    generator = np.random.default_rng(seed)
    # A swap needs two groups.
    groups_per_chunk = max(2, min(MAX_CHUNK_COLUMNS, int(math.sqrt(CHUNK_WORK / len(x)))) // m)
    if len(order) // m <= groups_per_chunk:
        return _search_with_escapes(_Chunk(x, order, m, keep), escapes, generator, limit)[:columns]
    for _ in range(1 + escapes // 10):
        _climb_in_chunks(x, order, m, keep, generator.permutation(len(order) // m), groups_per_chunk, limit)
    return order[:columns]


def _climb_in_chunks(
    x: Floats, order: Ints, m: int, keep: int, groups: Ints, groups_per_chunk: int, limit: TimeLimit
) -> None:
    """Climb in one chunk after the other, and change `order` in place.

    Each chunk takes the next `groups_per_chunk` entries of `groups`, a permutation of the groups' numbers.
    """
    for first in range(0, len(groups), groups_per_chunk):
        if limit.passed():
            return
        chunk_places = (groups[first : first + groups_per_chunk, None] * m + np.arange(m)).ravel()
        is_column = order[chunk_places] >= 0  # False in the padding of the last group
        chunk_columns = order[chunk_places[is_column]]
        chunk_order = np.full(len(chunk_places), -1, np.int64)
        chunk_order[is_column] = np.arange(len(chunk_columns))
        chunk = _Chunk(np.ascontiguousarray(x[:, chunk_columns]), chunk_order, m, keep)
        chunk.climb(limit)
        order[chunk_places] = np.where(chunk.order >= 0, chunk_columns[chunk.order], -1)


def _search_with_escapes(chunk: _Chunk, escapes: int, generator: np.random.Generator, limit: TimeLimit) -> Ints:
    chunk.climb(limit)
    best, order = chunk.score, chunk.order.copy()
    for _ in range(escapes):
        if limit.passed():
            break
        chunk.perturb(generator)
        chunk.climb(limit)
        if chunk.score > best:
            best, order = chunk.score, chunk.order.copy()
        else:
            chunk.restore(order)
    return order
