"""A panel's tiles one after the other, each on its own: read, open, mend, write; and polish, where that is no proof."""

from __future__ import annotations

import numpy as np

from masksmith._panels import Bools, Duals, Forced, Matrix
from masksmith.kernels.jit import borrow, jit
from masksmith.kernels.tile import Budget, Bytes, Order, Tile, new_search, new_tile, put

from .augmentation import mend
from .complementary_slackness import is_proved
from .initial_mask import fix_forced, open_tile, price_wide
from .negative_cycles import polish

HUGE = 2.0**1000
SHRINK = 2.0**-64
LARGEST = 1.7976931348623157e308


@borrow
def _read(scores: Matrix, top: int, left: int, rows: int, cols: int, tile: Tile) -> float:
    """Copy a tile's scores; give the power of two they were multiplied with, so that sums cannot overflow."""
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


@borrow
def _write(tile: Tile, rows: int, cols: int, scale: float, mask: Bools, u: Duals, v: Duals) -> None:
    for i in range(rows):
        for j in range(cols):
            mask[i, j] = tile.kept[i * cols + j] != 0
    for i in range(rows):
        u[i] = max(-LARGEST, min(LARGEST, tile.u[i] / scale))
    for j in range(cols):
        v[j] = max(-LARGEST, min(LARGEST, tile.v[j] / scale))


@borrow
def _read_prices(tile: Tile, budget: Budget, scale: float, u: Duals, v: Duals) -> None:
    low = 0.0 if budget.at_most else -np.inf
    for i in range(budget.rows):
        tile.u[i] = max(low, u[i] * scale)
    for j in range(budget.cols):
        tile.v[j] = max(low, v[j] * scale)


@borrow
def _read_codes(forced: Forced, top: int, left: int, rows: int, cols: int, codes: Bytes) -> None:
    for i in range(rows):
        for j in range(cols):
            codes[i * cols + j] = np.uint8(forced[top + i, left + j]) if forced.size else np.uint8(0)


@borrow
def _read_mask(tile: Tile, rows: int, cols: int, mask: Bools) -> None:
    for i in range(rows):
        for j in range(cols):
            put(tile, rows, cols, i, j, np.uint8(mask[i, j]))


@jit
def solve_panel(
    scores: Matrix, forced: Forced, budget: Budget, order: Order, ready: Bytes, mask: Bools, row_duals: Duals,
    col_duals: Duals,
) -> tuple[int, int]:  # fmt: skip
    """Solve the tiles of a panel that `order` lists; move those without a proof to its front.

    Args:
        scores: `[down * rows, across * cols]`.
        forced: Likewise, or `[0, 0]` when every entry is free.
        budget: Size and budgets of its tiles.
        order: Indices `tile row * across + tile column`.
        ready: By index, 1 where mask and duals obey complementary slackness and rows are in order.
        mask: As scores; start and answer.
        row_duals: `[down, across, rows]`, start and answer.
        col_duals: `[down, across, cols]`, start and answer.

    Returns:
        Index of the first tile without an allowed mask, or -1; number of tiles whose duals are no proof yet.
    """
    rows, cols, across = budget.rows, budget.cols, row_duals.shape[1]
    tile, search, unproved = new_tile(rows, cols), new_search(rows, budget.width), 0
    codes = np.zeros(rows * cols, np.uint8)
    for t in order:
        down, side = t // across, t % across
        top, left, u, v = down * rows, side * cols, row_duals[down, side], col_duals[down, side]
        scale = _read(scores, top, left, rows, cols, tile)
        _read_prices(tile, budget, scale, u, v)
        if forced.size:
            _read_codes(forced, top, left, rows, cols, codes)
            if not fix_forced(tile, budget, codes):
                return t, 0
        if ready[t]:
            _read_mask(tile, rows, cols, mask[top : top + rows, left : left + cols])
        else:
            price_wide(tile, budget, search)
            if not open_tile(tile, budget, search):
                return t, 0
        if not mend(tile, budget, search):
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
    """Polish tiles that `solve_panel` left without a proof; arguments as there.

    It stands apart because it is rarely needed, and what is never called need not be compiled.
    """
    rows, cols, across = budget.rows, budget.cols, row_duals.shape[1]
    tile, search = new_tile(rows, cols), new_search(rows, budget.width)
    codes = np.zeros(rows * cols, np.uint8)
    for t in order:
        down, side = t // across, t % across
        top, left, u, v = down * rows, side * cols, row_duals[down, side], col_duals[down, side]
        scale = _read(scores, top, left, rows, cols, tile)
        _read_prices(tile, budget, scale, u, v)
        _read_codes(forced, top, left, rows, cols, codes)
        fix_forced(tile, budget, codes)
        _read_mask(tile, rows, cols, mask[top : top + rows, left : left + cols])
        polish(tile, budget, search)
        _write(tile, rows, cols, scale, mask[top : top + rows, left : left + cols], u, v)
