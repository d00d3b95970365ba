"""Exchanges of a kept and a dropped entry that lower the error `trace(D H D^T)`.

D holds the dropped weights, and 0 where a weight is kept; H is the Gram matrix of the inputs. The change of the error
is computed exactly, up to rounding. For a row with weights w, row d of D, and `c = d H`, dropping the kept entry j and
keeping the dropped entry k changes the error by `2 (w_j c_j - w_k c_k) + w_j^2 H_jj + w_k^2 H_kk - 2 w_j w_k H_jk`.
Each function works on a few rows of a layer, so that several threads can share the rows.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .jit import inline, jit

Doubles = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


@inline
def _change(weight: Doubles, products: Doubles, gram: Doubles, row: int, j: int, k: int) -> float:
    """Return the change of the row's error if j is dropped and k is kept."""
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
    weight: Doubles, mask: Bools, products: Doubles, gram: Doubles, m: int, min_decrease: Doubles, sweeps: int
) -> int:
    """Make the best exchange of every group of every row, repeatedly, while an exchange lowers the error enough.

    Args:
        weight: `[rows, inputs]`.
        mask: `[rows, inputs]`, changed; every group keeps its count.
        products: `[rows, inputs]`, `((1 - mask) * weight) @ gram`, changed with the mask.
        gram: `[inputs, inputs]`, symmetric.
        m: Length of a group; the last one may be shorter.
        min_decrease: `[rows]`, smallest decrease of the error for which an exchange is made; positive, so that rounding
            errors cannot cause endless exchanges.
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
                best, dropped, added = -min_decrease[row], -1, -1
                for j in range(first, last):
                    if mask[row, j]:
                        for k in range(first, last):
                            if not mask[row, k]:
                                change = _change(weight, products, gram, row, j, k)
                                if change < best:
                                    best, dropped, added = change, j, k
                if dropped >= 0:
                    _exchange(weight, mask, products, gram, row, dropped, added)
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
    """Return the smallest change of dropping j and keeping k in one row, and that row; infinite if no row allows it."""
    best, at = np.inf, -1
    for row in range(changes.shape[0]):
        if changes[row, j, k] < best:
            best, at = changes[row, j, k], row
    return best, at


@inline
def _best_pair(changes: Doubles, width: int, min_decrease: float) -> tuple[int, int, int, int]:
    """Return the best pair of opposite exchanges, `(first_row, second_row, j, k)`.

    The first row drops j and keeps k, the second does the opposite. Rows are -1 if no pair lowers the error enough. The
    two rows always differ: the first keeps j before the exchange, the second does not.
    """
    best, best_first, best_second, dropped, added = -min_decrease, -1, -1, -1, -1
    for j in range(width):
        for k in range(j):
            first_change, first_row = _best_row(changes, j, k)
            second_change, second_row = _best_row(changes, k, j)
            if first_change + second_change < best:
                best, best_first, best_second = first_change + second_change, first_row, second_row
                dropped, added = j, k
    return best_first, best_second, dropped, added


@jit
def exchange_in_tiles(
    weight: Doubles, mask: Bools, products: Doubles, gram: Doubles, m: int, min_decrease: float, sweeps: int
) -> int:
    """Make the best pair of opposite exchanges of every tile of a band, while a pair lowers the error enough.

    Two rows exchange the same two columns in opposite directions, so that the counts of rows and columns do not change.

    Args:
        weight: `[rows, inputs]`, the rows of the band.
        mask, products, gram: As for `exchange_in_groups`.
        m: Columns of a tile; the last one may be narrower.
        min_decrease: Smallest decrease of the error for which an exchange is made, positive.
        sweeps: Maximum number of passes over the band; in a pass, at most `sweeps * rows` pairs per tile.

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
                first_row, second_row, dropped, added = _best_pair(changes, last - first, min_decrease)
                if first_row < 0:
                    break
                _exchange(weight, mask, products, gram, first_row, first + dropped, first + added)
                _exchange(weight, mask, products, gram, second_row, first + added, first + dropped)
                _fill_changes(changes, weight, mask, products, gram, first_row, first, last)
                _fill_changes(changes, weight, mask, products, gram, second_row, first, last)
                exchanges += 1
        if exchanges == before:
            break
    return exchanges
