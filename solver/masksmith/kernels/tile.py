"""Data structures of the shortest-path solver, which treats one tile as a transportation problem.

The nodes are the tile's rows and columns; with at-most budgets an outer node absorbs the unfilled budgets of both. A
kept entry carries one unit of flow from its row to its column. The duals u (rows) and v (columns) satisfy complementary
slackness after every step: of the entries that are free (not forced), kept ones have `w >= u + v`, and dropped ones
`w <= u + v`, where w is the score. Rows always satisfy their budgets; `shortest_paths.augmentation` corrects the number
of entries kept in each column.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from .jit import jit, jit_without_refcounts

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bytes = npt.NDArray[np.uint8]
Order = npt.NDArray[np.int64]


class Budget(NamedTuple):
    """Size and budgets of a tile; `width` is `cols`, plus 1 for the outer node if budgets are at-most."""

    rows: int
    cols: int
    row_keep: int
    col_keep: int
    at_most: bool
    width: int


class Tile(NamedTuple):
    """Scores, mask and duals of one tile.

    Attributes:
        w, w_t: Scores, `[rows * cols]` row-major, and `[cols * rows]` transposed, as the other pairs of arrays.
        kept, kept_t: 1 where kept.
        free, free_t: 1 where not forced.
        u, v: Duals of rows `[rows]` and columns `[cols]`; the outer node's dual is 0.
    """

    w: Floats
    w_t: Floats
    kept: Bytes
    kept_t: Bytes
    free: Bytes
    free_t: Bytes
    u: Floats
    v: Floats


class Search(NamedTuple):
    """Work arrays of a shortest-path search; the outer node is column `cols`.

    Attributes:
        add_cost: `[rows, padded width]`, reduced cost of keeping an entry that is dropped; infinite if not allowed.
        drop_cost: `[width, padded rows]`, reduced cost of dropping an entry that is kept; infinite if not allowed.
        row_d, col_d: Distances from the sources.
        row_seen, col_seen: Distances at which nodes were last expanded.
        row_from: Predecessor column of each row.
        col_from: Predecessor row of each column; negative: `ROOT` or another code of `shortest_paths.augmentation`.
        excess: Entries kept beyond the budget, per column; negative if entries are missing.
        slack: Unfilled budget of each column that may stay unfilled (at-most budgets, dual 0).
        used: 1 for rows on an augmenting path of this phase.
    """

    add_cost: Floats
    drop_cost: Floats
    row_d: Floats
    col_d: Floats
    row_seen: Floats
    col_seen: Floats
    row_from: Ints
    col_from: Ints
    excess: Ints
    slack: Ints
    used: Bytes


@jit
def new_tile(rows: int, cols: int) -> Tile:
    """Allocate a tile with every entry free and nothing kept."""
    size = rows * cols
    return Tile(
        np.empty(size), np.empty(size), np.zeros(size, np.uint8), np.zeros(size, np.uint8), np.ones(size, np.uint8),
        np.ones(size, np.uint8), np.zeros(rows), np.zeros(cols),
    )  # fmt: skip


@jit
def new_search(rows: int, width: int) -> Search:
    """Allocate the work arrays of a search."""
    # Lengths are padded to multiples of 8, the vector length; padding has infinite cost.
    padded_rows, padded_width = (rows + 7) // 8 * 8, (width + 7) // 8 * 8
    return Search(
        np.full(rows * padded_width, np.inf), np.full(width * padded_rows, np.inf), np.empty(padded_rows),
        np.empty(padded_width), np.empty(rows), np.empty(width), np.zeros(padded_rows, np.int64),
        np.zeros(padded_width, np.int64), np.zeros(width, np.int64), np.zeros(width, np.int64),
        np.zeros(rows, np.uint8),
    )  # fmt: skip


@jit_without_refcounts
def set_kept(tile: Tile, rows: int, cols: int, i: int, j: int, kept: int) -> None:
    """Set entry (i, j) to `kept` (0 or 1) in both copies of the mask."""
    tile.kept[i * cols + j] = kept
    tile.kept_t[j * rows + i] = kept
