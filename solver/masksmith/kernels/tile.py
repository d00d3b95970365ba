"""One tile as a transportation problem: rows, columns and, under limits, one outer node that takes the slack.

Kept entries carry one unit from their row to their column. Potentials u, v obey complementary slackness at every step
of the solver: free kept entries have `u + v <= w`, free dropped ones `u + v >= w`; what may be wrong is the number
kept in a column, and mending that is what `shortest_paths.augmentation` is for.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from .jit import borrow, jit

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bytes = npt.NDArray[np.uint8]
Order = npt.NDArray[np.int64]


class Budget(NamedTuple):
    """Size and budgets of a tile; `width` counts its columns and, with limits, the outer node behind the last one."""

    rows: int
    cols: int
    row_keep: int
    col_keep: int
    at_most: bool
    width: int


class Tile(NamedTuple):
    """Scores, state and potentials of the tile at hand; `_t` marks a transposed copy, both are flat.

    Attributes:
        w, w_t: Scores.
        kept, kept_t: 1 where kept.
        free, free_t: 1 where not forced.
        u, v: Potentials of rows and columns; the outer node's is 0.
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
    """Scratch of a shortest-path search; the outer node is column `cols`.

    Attributes:
        take: `[rows, padded width]`, what a row pays to keep one more entry; infinite where it cannot.
        give: `[width, padded rows]`, what a row pays to give an entry up.
        row_d, col_d: Distances.
        row_seen, col_seen: Distances at which nodes were last expanded.
        row_from: Column that a row was reached from.
        col_from: Row that a column was reached from, or `ROOT`, or below it: see `shortest_paths.augmentation`.
        excess: Entries too many per column, negative where some are missing.
        spare: Unused places per column that its budget may leave unused.
        used: Rows on a path of this phase.
    """

    take: Floats
    give: Floats
    row_d: Floats
    col_d: Floats
    row_seen: Floats
    col_seen: Floats
    row_from: Ints
    col_from: Ints
    excess: Ints
    spare: Ints
    used: Bytes


@jit
def new_tile(rows: int, cols: int) -> Tile:
    """Allocate a tile; every entry free."""
    size = rows * cols
    return Tile(
        np.empty(size), np.empty(size), np.zeros(size, np.uint8), np.zeros(size, np.uint8), np.ones(size, np.uint8),
        np.ones(size, np.uint8), np.zeros(rows), np.zeros(cols),
    )  # fmt: skip


@jit
def new_search(rows: int, width: int) -> Search:
    """Allocate the scratch of searches."""
    # Whole vectors of eight, with no edges to what pads them.
    tall, wide = (rows + 7) // 8 * 8, (width + 7) // 8 * 8
    return Search(
        np.full(rows * wide, np.inf), np.full(width * tall, np.inf), np.empty(tall), np.empty(wide), np.empty(rows),
        np.empty(width), np.zeros(tall, np.int64), np.zeros(wide, np.int64), np.zeros(width, np.int64),
        np.zeros(width, np.int64), np.zeros(rows, np.uint8),
    )  # fmt: skip


@borrow
def put(tile: Tile, rows: int, cols: int, i: int, j: int, kept: int) -> None:
    """Keep or drop one entry."""
    tile.kept[i * cols + j] = kept
    tile.kept_t[j * rows + i] = kept
