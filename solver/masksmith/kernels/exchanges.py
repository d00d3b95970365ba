"""Exchanges of kept for dropped entries that lower `D H D^T`, D the dropped weights, with exact changes.

For a row with dropped weights d and `c = d H`, dropping the kept entry j and keeping the dropped entry k changes the
error by `2 (w_j c_j - w_k c_k) + w_j^2 H_jj + w_k^2 H_kk - 2 w_j w_k H_jk`. Each function works on a few rows of a
layer, so that rows may be handed to several threads.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .jit import inline, jit

Doubles = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


@inline
def _change(weight: Doubles, products: Doubles, gram: Doubles, row: int, j: int, k: int) -> float:
    """Change of the row's error when j is dropped and k is kept."""
    a, b = weight[row, j], weight[row, k]
    return (
        2.0 * (a * products[row, j] - b * products[row, k])
        + (a * a * gram[j, j] + b * b * gram[k, k])
        - 2.0 * a * b * gram[j, k]
    )


@inline
def _exchange(weight: Doubles, mask: Bools, products: Doubles, gram: Doubles, row: int, j: int, k: int) -> None:
    """Drop j and keep k."""
    mask[row, j], mask[row, k] = False, True
    a, b = weight[row, j], weight[row, k]
    for column in range(gram.shape[0]):
        products[row, column] += a * gram[j, column] - b * gram[k, column]


@jit
def exchange_in_groups(
    weight: Doubles, mask: Bools, products: Doubles, gram: Doubles, m: int, least: Doubles, sweeps: int
) -> int:
    """Make the best exchange of every group of every row, again and again, until none gains.

    Args:
        weight: `[rows, inputs]`.
        mask: `[rows, inputs]`, changed; every group keeps its count.
        products: `[rows, inputs]`, `((1 - mask) * weight) @ gram`, changed with the mask.
        gram: `[inputs, inputs]`, symmetric.
        m: Length of a group; the last one may be shorter.
        least: `[rows]`, smallest decrease of the error that is worth an exchange; positive, so that rounding cannot
            make a circle.
        sweeps: Maximum number of passes over a row.

    Returns:
        Number of exchanges.
    """
    inputs, exchanges = weight.shape[1], 0
    for row in range(weight.shape[0]):
        for _ in range(sweeps):
            before = exchanges
            for first in range(0, inputs, m):
                last = min(first + m, inputs)
                best, out, into = -least[row], -1, -1
                for j in range(first, last):
                    if mask[row, j]:
                        for k in range(first, last):
                            if not mask[row, k]:
                                change = _change(weight, products, gram, row, j, k)
                                if change < best:
                                    best, out, into = change, j, k
                if out >= 0:
                    _exchange(weight, mask, products, gram, row, out, into)
                    exchanges += 1
            if exchanges == before:
                break
    return exchanges


@inline
def _fill_changes(
    changes: Doubles, weight: Doubles, mask: Bools, products: Doubles, gram: Doubles, row: int, first: int, last: int
) -> None:
    """Write the change of every exchange of a row of a tile, infinite where it is not possible."""
    for j in range(first, last):
        for k in range(first, last):
            changes[row, j - first, k - first] = np.inf
            if mask[row, j] and not mask[row, k]:
                changes[row, j - first, k - first] = _change(weight, products, gram, row, j, k)


@inline
def _best_row(changes: Doubles, j: int, k: int) -> tuple[float, int]:
    """Return the least change of dropping j and keeping k, and its row; infinite if no row can."""
    best, at = np.inf, -1
    for row in range(changes.shape[0]):
        if changes[row, j, k] < best:
            best, at = changes[row, j, k], row
    return best, at


@inline
def _best_pair(changes: Doubles, width: int, least: float) -> tuple[int, int, int, int]:
    """Return the best pair of opposite exchanges: two rows, and the column that the first of them drops and keeps.

    The best rows for the two directions differ by themselves: one keeps j, the other does not.
    """
    best, top, bottom, out, into = -least, -1, -1, -1, -1
    for j in range(width):
        for k in range(j):
            down, first = _best_row(changes, j, k)
            up, second = _best_row(changes, k, j)
            if down + up < best:
                best, top, bottom, out, into = down + up, first, second, j, k
    return top, bottom, out, into


@jit
def exchange_in_tiles(
    weight: Doubles, mask: Bools, products: Doubles, gram: Doubles, m: int, least: float, sweeps: int
) -> int:
    """Make the best pair of opposite exchanges of every tile of one band of tiles, again and again, until none gains.

    Two rows exchange the same two columns in opposite directions, so that counts of rows and columns stay.

    Args:
        weight: `[rows, inputs]`, the rows of the band.
        mask: As for `exchange_in_groups`, and so are `products` and `gram`.
        products: See there.
        gram: See there.
        m: Columns of a tile; the last one may be narrower.
        least: Smallest decrease of the error that is worth an exchange, positive.
        sweeps: Maximum number of passes over the band, and of exchanges per row of a tile in one of them.

    Returns:
        Number of pairs of exchanges.
    """
    rows, inputs = weight.shape
    changes, exchanges = np.empty((rows, m, m)), 0
    for _ in range(sweeps):
        before = exchanges
        for first in range(0, inputs, m):
            last = min(first + m, inputs)
            for row in range(rows):
                _fill_changes(changes, weight, mask, products, gram, row, first, last)
            for _ in range(sweeps * rows):
                top, bottom, out, into = _best_pair(changes, last - first, least)
                if top < 0:
                    break
                _exchange(weight, mask, products, gram, top, first + out, first + into)
                _exchange(weight, mask, products, gram, bottom, first + into, first + out)
                _fill_changes(changes, weight, mask, products, gram, top, first, last)
                _fill_changes(changes, weight, mask, products, gram, bottom, first, last)
                exchanges += 1
        if exchanges == before:
            break
    return exchanges
