"""Finds the best 4 columns of a V:N:M panel by enumeration with bounds.

Let f(S) be the score kept if every row keeps its n largest entries in the columns S. The function f is monotone and
submodular (a sum of weighted rank functions of uniform matroids), so

    f(abcd) <= f(abc) + f(abd) - f(ab)    for every pair ab of the four columns:

six bounds from tables of pairs and triples, computed once per panel. Only sets whose smallest bound exceeds the best
score so far are evaluated.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from masksmith._panels import Duals
from masksmith.kernels.jit import inline, jit

ColumnIndices: TypeAlias = npt.NDArray[np.int64]

STEP = 4
"""Rows summed in parallel, in SIMD lanes; columns are padded with zeros to a multiple of it."""


@inline
def _larger(x: float, y: float) -> float:
    return x if x > y else y


@inline
def _best_of_two(n: int, i: float, j: float) -> float:
    """Return the sum of the n largest of two entries."""
    return _larger(i, j) if n == 1 else i + j


@inline
def _best_of_three(n: int, i: float, j: float, k: float) -> float:
    """Return the sum of the n largest of three entries."""
    high, both = _larger(i, j), i + j
    if n == 1:
        return _larger(high, k)
    return _larger(both, high + k) if n == 2 else both + k


@inline
def _best_of_four(n: int, i: float, j: float, k: float, o: float) -> float:
    """Return the sum of the n largest of four entries, from the maximum and the sum of two pairs."""
    high, both, high2, both2 = _larger(i, j), i + j, _larger(k, o), k + o
    if n == 1:
        return _larger(high, high2)
    if n == 2:
        return _larger(high + high2, _larger(both, both2))
    if n == 3:
        return _larger(both + high2, high + both2)
    return both + both2


@inline
def _pair_score(n: int, x: Duals, y: Duals) -> float:
    """Return the score kept by two columns."""
    s = t = u = v = 0.0
    for r in range(0, len(x), STEP):
        s += _best_of_two(n, x[r], y[r])
        t += _best_of_two(n, x[r + 1], y[r + 1])
        u += _best_of_two(n, x[r + 2], y[r + 2])
        v += _best_of_two(n, x[r + 3], y[r + 3])
    return (s + t) + (u + v)


@inline
def _triple_score(n: int, x: Duals, y: Duals, z: Duals) -> float:
    """Return the score kept by three columns."""
    s = t = u = v = 0.0
    for r in range(0, len(x), STEP):
        s += _best_of_three(n, x[r], y[r], z[r])
        t += _best_of_three(n, x[r + 1], y[r + 1], z[r + 1])
        u += _best_of_three(n, x[r + 2], y[r + 2], z[r + 2])
        v += _best_of_three(n, x[r + 3], y[r + 3], z[r + 3])
    return (s + t) + (u + v)


@jit
def _score(columns: Duals, n: int, a: int, b: int, c: int, d: int) -> float:
    """Return the score kept by four columns."""
    x, y, z, w = columns[a], columns[b], columns[c], columns[d]
    s = t = u = v = 0.0
    for r in range(0, len(x), STEP):
        s += _best_of_four(n, x[r], y[r], z[r], w[r])
        t += _best_of_four(n, x[r + 1], y[r + 1], z[r + 1], w[r + 1])
        u += _best_of_four(n, x[r + 2], y[r + 2], z[r + 2], w[r + 2])
        v += _best_of_four(n, x[r + 3], y[r + 3], z[r + 3], w[r + 3])
    return (s + t) + (u + v)


@jit
def _tables(columns: Duals, n: int) -> tuple[Duals, Duals]:
    """Return the scores kept by every pair `[m, m]` and every triple `[m, m, m]` of columns."""
    m = columns.shape[0]
    pairs, triples = np.zeros((m, m)), np.zeros((m, m, m))
    for a in range(m):
        for b in range(a + 1, m):
            pairs[a, b] = pairs[b, a] = _pair_score(n, columns[a], columns[b])
            for c in range(b + 1, m):
                total = _triple_score(n, columns[a], columns[b], columns[c])
                triples[a, b, c] = triples[a, c, b] = triples[b, a, c] = total
                triples[b, c, a] = triples[c, a, b] = triples[c, b, a] = total
    return pairs, triples


@inline
def _bound(pairs: Duals, triples: Duals, a: int, b: int, c: int, d: int) -> float:
    """Return the smallest of the six bounds on the score of four columns."""
    abc, abd, acd, bcd = triples[a, b, c], triples[a, b, d], triples[a, c, d], triples[b, c, d]
    smallest = min(abc + abd - pairs[a, b], abc + acd - pairs[a, c])
    smallest = min(smallest, min(abd + acd - pairs[a, d], abc + bcd - pairs[b, c]))
    return min(smallest, min(abd + bcd - pairs[b, d], acd + bcd - pairs[c, d]))


@jit
def _initial_set(columns: Duals, n: int, triples: Duals, chosen: ColumnIndices) -> float:
    """Write an initial set to `chosen` and return its score.

    It is the best triple with the best fourth column, improved by exchanging single columns up to a local optimum.
    """
    m, top = columns.shape[0], -1.0
    for a in range(m):
        for b in range(a + 1, m):
            for c in range(b + 1, m):
                if triples[a, b, c] > top:
                    top = triples[a, b, c]
                    chosen[0], chosen[1], chosen[2] = a, b, c
    best, slot, idle = -1.0, 3, 0
    while idle < 4:
        idle += 1
        kept = chosen[slot]
        for column in range(m):
            taken = False
            for other in range(4):
                taken |= other != slot and chosen[other] == column
            if taken:
                continue
            chosen[slot] = column
            value = _score(columns, n, chosen[0], chosen[1], chosen[2], chosen[3])
            if value > best:
                best, kept, idle = value, column, 0
        chosen[slot] = kept
        slot = (slot + 1) % 4
    chosen.sort()
    return best


@jit
def _global_bound(columns: Duals, n: int) -> float:
    """Return an upper bound on every set: the sum of the n largest entries of every row, over all columns."""
    m, rows = columns.shape
    top, total = np.empty(n), 0.0
    for row in range(rows):
        top[:] = 0.0
        for column in range(m):
            value = columns[column, row]
            for place in range(n):
                if value > top[place]:
                    top[place], value = value, top[place]
        total += top.sum()
    return total


@jit
def search(
    columns: Duals, n: int, limit: int, rounding_factor: float, chosen: ColumnIndices
) -> tuple[float, float, float]:
    """Find the best 4 columns.

    Args:
        columns: `[m, rows]`, scores, transposed.
        n: Entries kept in each row.
        limit: Maximum number of sets evaluated; the remaining ones only contribute their bounds.
        rounding_factor: Factor by which rounding may have lowered a sum; 1 if sums are exact.
        chosen: `[4]`, written: the columns, ascending.

    Returns:
        The score kept, the second best score evaluated, and an upper bound on the score of any set.
    """
    m = columns.shape[0]
    pairs, triples = _tables(columns, n)
    best = _initial_set(columns, n, triples, chosen)
    second, upper_bound, remaining = -1.0, best, limit
    global_bound = _global_bound(columns, n)
    if rounding_factor == 1.0 and global_bound == best:
        return best, second, best
    for a in range(m):
        for b in range(a + 1, m):
            for c in range(b + 1, m):
                for d in range(c + 1, m):
                    bound = min(global_bound, _bound(pairs, triples, a, b, c, d)) * rounding_factor
                    if bound < best or (rounding_factor == 1.0 and bound == best):
                        continue
                    if chosen[0] == a and chosen[1] == b and chosen[2] == c and chosen[3] == d:
                        continue
                    if remaining == 0:
                        upper_bound = max(upper_bound, bound)
                        continue
                    remaining -= 1
                    value = _score(columns, n, a, b, c, d)
                    second = max(second, min(value, best))
                    if value > best:
                        best = value
                        chosen[0], chosen[1], chosen[2], chosen[3] = a, b, c, d
    return best, second, max(best, upper_bound)
