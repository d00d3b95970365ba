"""Local search over swaps of columns between N:M groups, and estimates of the values of columns for transposable tiles.

The gains of swaps are exact, and are computed from tables. Without column a, every row of its group has a sum of its n
largest remaining entries, and a threshold: the n-th largest remaining entry. If column b takes the place of a, it adds
`max(0, x_b - threshold)` to this sum. So the gain of every swap is a sum of entries of two tables, and a swap changes
only the table rows of the columns in the two groups.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .jit import inline, jit

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@inline
def _sort_group(x: Floats, order: Ints, row: int, first: int, values: Floats) -> None:
    """Write one row of a group to `values`, sorted in descending order; places without a column count as 0."""
    for place in range(values.shape[0]):
        column = order[first + place]
        value = np.float32(0.0)
        if column >= 0:
            value = x[row, column]
        at = place
        while at > 0 and values[at - 1] < value:
            values[at] = values[at - 1]
            at -= 1
        values[at] = value


@jit
def refresh(
    x: Floats, order: Ints, group: int, keep: int, values: Floats,
    thresholds: Floats, without: Doubles, score: Doubles, gains: Doubles,
) -> None:  # fmt: skip
    """Recompute the tables of one group.

    Args:
        x: `[rows, columns]`.
        order: `[groups * m]`, the column at each place, -1 for none.
        group: Index of the group.
        keep: n, the entries kept of every m.
        values: `[m]`, work array.
        thresholds: `[columns, rows]`, written: n-th largest entry of the group without the column.
        without: `[columns]`, written: score kept by the group without the column.
        score: `[groups]`, written: score kept by the group.
        gains: `[columns, columns]`, written for columns a of the group: score that b adds to the group without a.
    """
    m, first = values.shape[0], group * values.shape[0]
    total = 0.0
    for place in range(first, first + m):
        if order[place] >= 0:
            without[order[place]] = 0.0
            gains[order[place], :] = 0.0
    for row in range(x.shape[0]):
        _sort_group(x, order, row, first, values)
        kept = 0.0
        for place in range(keep):
            kept += values[place]
        total += kept
        last = values[keep - 1]
        following = values[keep] if keep < m else np.float32(0.0)
        for place in range(first, first + m):
            column = order[place]
            if column >= 0:
                inside = x[row, column] >= last
                threshold = following if inside else last
                without[column] += kept - np.float64(x[row, column]) + following if inside else kept
                thresholds[column, row] = threshold
                for other in range(x.shape[1]):
                    # In float64: with float32 rounding, a swap and its reverse could both have positive gains.
                    extra = np.float64(x[row, other]) - np.float64(threshold)
                    gains[column, other] += max(extra, 0.0)
    score[group] = total


@jit
def swap(order: Ints, places: Ints, p: int, q: int) -> None:
    """Exchange the columns at places `p` and `q`, in `order` and its inverse `places`."""
    a, b = order[p], order[q]
    order[p], order[q] = b, a
    places[a], places[b] = q, p


@jit
def climb(
    x: Floats, order: Ints, places: Ints, keep: int, values: Floats,
    thresholds: Floats, without: Doubles, score: Doubles, gains: Doubles, min_gain: float, limit: int,
) -> int:  # fmt: skip
    """Swap columns with their best partners while a swap gains more than `min_gain`; stop after `limit` swaps.

    The tables are those of `refresh`, and are changed in place, like `order`. `places` is the inverse of `order`: the
    place of each column, -1 for columns that must not move.

    Returns:
        Number of swaps; less than `limit` at a local optimum.
    """
    m, columns, swaps = values.shape[0], x.shape[1], 0
    improved = True
    while improved:
        improved = False
        for p in range(order.shape[0]):
            a = order[p]
            if a < 0:
                continue
            group, best, partner = p // m, min_gain, -1
            base = without[a] - score[group]
            for b in range(columns):
                other = places[b] // m
                if other != group and places[b] >= 0:
                    value = base + gains[a, b] + without[b] + gains[b, a] - score[other]
                    if value > best:
                        best, partner = value, b
            if partner >= 0:
                q = places[partner]
                swap(order, places, p, q)
                refresh(x, order, group, keep, values, thresholds, without, score, gains)
                refresh(x, order, q // m, keep, values, thresholds, without, score, gains)
                improved = True
                swaps += 1
                if swaps == limit:
                    return swaps
    return swaps


@jit
def column_values(x: Doubles, duals: Doubles, keep: int, at_most: bool, values: Doubles, largest: Doubles) -> None:
    """Estimate, for transposable patterns, the value of each column in each tile column from the tiles' row duals.

    `values[c, t] = sum over tile rows of the keep largest of x[., c] - duals[., t, .]`. If the duals are optimal and
    column b replaces column a in tile column t, its best score changes by at most `values[b, t] - values[a, t]`.

    Args:
        x: `[down * height, columns]`.
        duals: `[down, across, height]`, row duals of the tiles.
        keep: Budget of each column of a tile.
        at_most: Whether fewer entries may be kept.
        values: `[columns, across]`, written.
        largest: `[keep]`, work array.
    """
    down, across, height = duals.shape
    values[:] = 0.0
    for tile_row in range(down):
        for column in range(x.shape[1]):
            for tile in range(across):
                largest[:] = 0.0 if at_most else -np.inf
                for row in range(height):
                    value = x[tile_row * height + row, column] - duals[tile_row, tile, row]
                    if value > largest[keep - 1]:
                        at = keep - 1
                        while at > 0 and largest[at - 1] < value:
                            largest[at] = largest[at - 1]
                            at -= 1
                        largest[at] = value
                for place in range(keep):
                    values[column, tile] += largest[place]
