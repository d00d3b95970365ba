"""Solves tiles of a panel one by one with shortest augmenting paths, and polishes those without a proof."""

from __future__ import annotations

import numpy as np

from masksmith._panels import Bools, Duals, Forced, Matrix
from masksmith.kernels.jit import jit, jit_without_refcounts
from masksmith.kernels.tile import Budget, Bytes, Order, Tile, new_search, new_tile, set_kept

from .augmentation import balance_columns
from .complementary_slackness import is_proved
from .initial_mask import fix_forced, initialise_tile, initialise_wide_duals
from .negative_cycles import polish

HUGE, SHRINK = 2.0**1000, 2.0**-64
"""Tiles with a score of `HUGE` or more are multiplied by `SHRINK`, so that sums cannot overflow."""
MAX_FLOAT = 1.7976931348623157e308


@jit_without_refcounts
def _read(scores: Matrix, top: int, left: int, rows: int, cols: int, tile: Tile) -> float:
    """Copy a tile's scores, scaled so that sums cannot overflow; return the scale, a power of two."""
    largest = 0.0
    for i in range(rows):
        for j in range(cols):
            w = np.float64(scores[top + i, left + j])
            tile.w[i * cols + j] = tile.w_t[j * rows + i] = w
            largest = max(largest, w)
    if largest < HUGE:
        return 1.0
    for at in range(rows * cols):
        tile.w[at] *= SHRINK
        tile.w_t[at] *= SHRINK
    return SHRINK


@jit_without_refcounts
def _write(tile: Tile, rows: int, cols: int, scale: float, mask: Bools, u: Duals, v: Duals) -> None:
    for i in range(rows):
        for j in range(cols):
            mask[i, j] = tile.kept[i * cols + j] != 0
    for i in range(rows):
        u[i] = max(-MAX_FLOAT, min(MAX_FLOAT, tile.u[i] / scale))
    for j in range(cols):
        v[j] = max(-MAX_FLOAT, min(MAX_FLOAT, tile.v[j] / scale))


@jit_without_refcounts
def _read_duals(tile: Tile, budget: Budget, scale: float, u: Duals, v: Duals) -> None:
    low = 0.0 if budget.at_most else -np.inf
    for i in range(budget.rows):
        tile.u[i] = max(low, u[i] * scale)
    for j in range(budget.cols):
        tile.v[j] = max(low, v[j] * scale)


@jit_without_refcounts
def _read_codes(forced: Forced, top: int, left: int, rows: int, cols: int, codes: Bytes) -> None:
    for i in range(rows):
        for j in range(cols):
            codes[i * cols + j] = np.uint8(forced[top + i, left + j]) if forced.size else np.uint8(0)


@jit_without_refcounts
def _read_mask(tile: Tile, rows: int, cols: int, mask: Bools) -> None:
    for i in range(rows):
        for j in range(cols):
            set_kept(tile, rows, cols, i, j, np.uint8(mask[i, j]))


@jit
def solve_panel(
    scores: Matrix, forced: Forced, budget: Budget, order: Order, ready: Bytes, mask: Bools, row_duals: Duals,
    col_duals: Duals,
) -> tuple[int, int]:  # fmt: skip
    """Solve the tiles of a panel listed in `order`; move the indices of those without a proof to its front.

    Args:
        scores: `[down * rows, across * cols]`.
        forced: Of the shape of `scores`, or `[0, 0]` if every entry is free.
        budget: Size and budgets of the tiles.
        order: Indices `tile row * across + tile column`, changed in place.
        ready: By index, 1 if mask and duals of the tile satisfy complementary slackness and every row meets its budget.
        mask: Of the shape of `scores`; read for tiles that are `ready`, written for all.
        row_duals: `[down, across, rows]`, initial values, written.
        col_duals: `[down, across, cols]`, initial values, written.

    Returns:
        Index of the first tile without an allowed mask, or -1; number of tiles whose duals do not prove their masks.
    """
    rows, cols, across = budget.rows, budget.cols, row_duals.shape[1]
    tile, search, unproved = new_tile(rows, cols), new_search(rows, budget.width), 0
    codes = np.zeros(rows * cols, np.uint8)
    for t in order:
        tile_row, tile_col = t // across, t % across
        top, left = tile_row * rows, tile_col * cols
        u, v = row_duals[tile_row, tile_col], col_duals[tile_row, tile_col]
        scale = _read(scores, top, left, rows, cols, tile)
        _read_duals(tile, budget, scale, u, v)
        if forced.size:
            _read_codes(forced, top, left, rows, cols, codes)
            if not fix_forced(tile, budget, codes):
                return t, 0
        if ready[t]:
            _read_mask(tile, rows, cols, mask[top : top + rows, left : left + cols])
        else:
            initialise_wide_duals(tile, budget, search)
            if not initialise_tile(tile, budget, search):
                return t, 0
        if not balance_columns(tile, budget, search):
            return t, 0
        if not is_proved(tile, budget):
            order[unproved] = t
            unproved += 1
        _write(tile, rows, cols, scale, mask[top : top + rows, left : left + cols], u, v)
    return -1, unproved


@jit
def polish_panel(
    scores: Matrix, forced: Forced, budget: Budget, order: Order, mask: Bools, row_duals: Duals, col_duals: Duals
) -> None:
    """Polish the tiles in `order`: those that `solve_panel` did not prove; other arguments as for `solve_panel`.

    It is a separate kernel because it is rarely needed, and compiled only when it is called.
    """
    rows, cols, across = budget.rows, budget.cols, row_duals.shape[1]
    tile, search = new_tile(rows, cols), new_search(rows, budget.width)
    codes = np.zeros(rows * cols, np.uint8)
    for t in order:
        tile_row, tile_col = t // across, t % across
        top, left = tile_row * rows, tile_col * cols
        u, v = row_duals[tile_row, tile_col], col_duals[tile_row, tile_col]
        scale = _read(scores, top, left, rows, cols, tile)
        _read_duals(tile, budget, scale, u, v)
        _read_codes(forced, top, left, rows, cols, codes)
        fix_forced(tile, budget, codes)
        _read_mask(tile, rows, cols, mask[top : top + rows, left : left + cols])
        polish(tile, budget, search)
        _write(tile, rows, cols, scale, mask[top : top + rows, left : left + cols], u, v)
