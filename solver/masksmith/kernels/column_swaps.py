"""Swaps of columns between groups: what each one gains for plain N:M, exactly, and descent along the best ones.

Taking column a out of its group leaves, in every row, a sum of the n largest and a threshold, the n-th largest of what
is left. Putting b in adds `max(0, x_b - threshold)`. So the value of every swap is a sum of entries of two tables, and
after a swap only the rows of the two groups' columns change.
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
    """Sort one row of a group, largest first; places without a column count as 0."""
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
    """Work out a group's tables anew.

    Args:
        x: `[rows, columns]`.
        order: `[groups * m]`, the column at each place, -1 for none.
        group: Which group.
        keep: Kept of every m.
        values: `[m]`, scratch.
        thresholds: `[columns, rows]`, written: n-th largest of the group without the column.
        without: `[columns]`, written: what the group keeps without the column.
        score: `[groups]`, written: what the group keeps.
        gains: `[columns, columns]`, rows written: what column b adds to the group of a, once a is out.
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
                    # In float64, or rounding could make a swap and its reverse both look like gains.
                    extra = np.float64(x[row, other]) - np.float64(threshold)
                    gains[column, other] += max(extra, 0.0)
    score[group] = total


@jit
def swap(order: Ints, places: Ints, p: int, q: int) -> None:
    """Exchange the columns at two places."""
    a, b = order[p], order[q]
    order[p], order[q] = b, a
    places[a], places[b] = q, p


@jit
def descend(
    x: Floats, order: Ints, places: Ints, keep: int, values: Floats,
    thresholds: Floats, without: Doubles, score: Doubles, gains: Doubles, least: float, limit: int,
) -> int:  # fmt: skip
    """Swap each column with its best partner while that gains more than `least`; stop after `limit` swaps.

    Tables as in `refresh`; `places` is the inverse of `order`, -1 for columns that must stay.

    Returns:
        Swaps made; fewer than `limit` at a local optimum.
    """
    m, columns, swaps = values.shape[0], x.shape[1], 0
    improved = True
    while improved:
        improved = False
        for p in range(order.shape[0]):
            a = order[p]
            if a < 0:
                continue
            group, best, partner = p // m, least, -1
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
def priced_columns(x: Doubles, prices: Doubles, keep: int, at_most: bool, values: Doubles, largest: Doubles) -> None:
    """Work out what each column would bring to each tile column if rows cost what they cost there now.

    `values[c, t] = sum over tile rows of the keep largest of x[., c] - prices[., t, .]`: with the tiles' optimal row
    prices an upper bound on the change that a swap makes, tight to first order.

    Args:
        x: `[down * height, columns]`.
        prices: `[down, across, height]`, row prices of the tiles.
        keep: Kept in each column of a tile.
        at_most: Whether fewer may be kept.
        values: `[columns, across]`, written.
        largest: `[keep]`, scratch.
    """
    down, across, height = prices.shape
    values[:] = 0.0
    for tile_row in range(down):
        for column in range(x.shape[1]):
            for tile in range(across):
                largest[:] = 0.0 if at_most else -np.inf
                for row in range(height):
                    value = x[tile_row * height + row, column] - prices[tile_row, tile, row]
                    if value > largest[keep - 1]:
                        at = keep - 1
                        while at > 0 and largest[at - 1] < value:
                            largest[at] = largest[at - 1]
                            at -= 1
                        largest[at] = value
                for place in range(keep):
                    values[column, tile] += largest[place]
