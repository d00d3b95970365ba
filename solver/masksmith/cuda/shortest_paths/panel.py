"""Solves the tiles that dual ascent left unsolved; each is solved by one thread, with the CPU's shortest-path kernels.

Such tiles are few (forced entries, scores of very different magnitude), so using the same code, which makes the same
choice among equal optima, matters more than a memory layout that suits the device.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any

from masksmith.cuda.elements import reader
from masksmith.cuda.jit import cuda, device, kernel
from masksmith.kernels.shortest_paths.augmentation import balance_columns
from masksmith.kernels.shortest_paths.complementary_slackness import is_proved
from masksmith.kernels.shortest_paths.initial_mask import fix_forced, initialise_tile, initialise_wide_duals
from masksmith.kernels.shortest_paths.negative_cycles import polish
from masksmith.kernels.shortest_paths.panel import HUGE, MAX_FLOAT, SHRINK
from masksmith.kernels.tile import Budget, Search, Tile


def scratch_sizes(budget: Budget) -> tuple[int, int, int]:
    """Return the numbers of doubles, integers and bytes in the work arrays of one thread.

    They are the total lengths of the arrays that `_tile_in` and `_search_in` place there; the bytes also hold the codes
    of forced entries.
    """
    rows, cols, width = budget.rows, budget.cols, budget.width
    size, padded_rows, padded_width = rows * cols, (rows + 7) // 8 * 8, (width + 7) // 8 * 8
    costs = rows * padded_width + width * padded_rows
    doubles = 2 * size + rows + cols + costs + padded_rows + padded_width + rows + width
    return doubles, padded_rows + padded_width + 2 * width, 5 * size + rows


@device
def _tile_in(doubles: Any, flags: Any, rows: int, cols: int) -> Tile:
    """Return a tile whose arrays lie at the start of these work arrays."""
    size, duals = rows * cols, doubles[2 * rows * cols :]
    return Tile(
        doubles[:size], doubles[size : 2 * size], flags[:size], flags[size : 2 * size], flags[2 * size : 3 * size],
        flags[3 * size : 4 * size], duals[:rows], duals[rows : rows + cols],
    )  # fmt: skip


@device
def _search_in(doubles: Any, numbers: Any, flags: Any, rows: int, width: int) -> Search:
    """Return a search whose arrays lie at the start of these work arrays."""
    padded_rows, padded_width = (rows + 7) // 8 * 8, (width + 7) // 8 * 8
    # Offsets of the arrays in `doubles` and in `numbers`.
    drop_cost_at = rows * padded_width
    row_d_at = drop_cost_at + width * padded_rows
    col_d_at = row_d_at + padded_rows
    row_seen_at = col_d_at + padded_width
    col_seen_at = row_seen_at + rows
    excess_at = padded_rows + padded_width
    slack_at = excess_at + width
    return Search(
        doubles[:drop_cost_at], doubles[drop_cost_at:row_d_at], doubles[row_d_at:col_d_at],
        doubles[col_d_at:row_seen_at], doubles[row_seen_at:col_seen_at], doubles[col_seen_at : col_seen_at + width],
        numbers[:padded_rows], numbers[padded_rows:excess_at], numbers[excess_at:slack_at],
        numbers[slack_at : slack_at + width], flags[:rows],
    )  # fmt: skip


@device
def _solve_tile(tile: Tile, budget: Budget, search: Search, has_forced: bool, codes: Any, is_ready: bool) -> int:
    """Solve the tile; return 0 if it has no allowed mask, else 1.

    `is_ready`: whether augmenting paths can start from the tile's mask. `codes`: forced entries, if `has_forced`.
    """
    if has_forced and not fix_forced(tile, budget, codes):
        return 0
    if not is_ready:
        initialise_wide_duals(tile, budget, search)
        if not initialise_tile(tile, budget, search):
            return 0
    if not balance_columns(tile, budget, search):
        return 0
    if not is_proved(tile, budget):
        polish(tile, budget, search)
    return 1


@device
def _prepare(tile: Tile, budget: Budget) -> float:
    """Fill the transposed copies, mark all entries free, and scale large scores so that sums cannot overflow.

    Returns the scale, a power of two: 1 if the scores are not scaled.
    """
    largest = 0.0
    for i in range(budget.rows):
        for j in range(budget.cols):
            at, transposed = i * budget.cols + j, j * budget.rows + i
            tile.w_t[transposed], tile.kept_t[transposed] = tile.w[at], tile.kept[at]
            tile.free[at] = tile.free_t[transposed] = 1
            largest = max(largest, tile.w[at])
    if largest < HUGE:
        return 1.0
    for at in range(budget.rows * budget.cols):
        tile.w[at] *= SHRINK
        tile.w_t[at] *= SHRINK
    return SHRINK


@device
def _clear(search: Search) -> None:
    """Set `add_cost` and `drop_cost` to infinity, padding included."""
    for at in range(len(search.add_cost)):
        search.add_cost[at] = math.inf
    for at in range(len(search.drop_cost)):
        search.drop_cost[at] = math.inf


@cache
def compile_path_kernel(element: str) -> Any:
    """Compile the kernel, one for all tile sizes; thread k solves tiles k, k + threads, k + 2 threads, ... of `order`.

    Arguments of the kernel that `dual_ascent.integer_pass.compile_integer_pass` does not describe:

        forced: As mask, non-zero where an entry is forced; an empty array, `[0, 0]`, if none is.
        ready: `[down * across]`; 1 if augmenting paths can start from the tile's mask: see
            `dual_ascent.schedule.DeviceResults`.
        doubles, numbers, flags: Work arrays, `[threads, n]` with n of `scratch_sizes`.
        infeasible: `infeasible[0]` is lowered to the index of the first tile without an allowed mask.
    """
    read = reader(element)

    def run(
        scores: Any, across: int, rows: int, cols: int, row_keep: int, col_keep: int, at_most: bool, forced: Any,
        order: Any, ready: Any, mask: Any, row_duals: Any, col_duals: Any, doubles: Any, numbers: Any, flags: Any,
        infeasible: Any,
    ) -> None:  # fmt: skip
        thread, size = cuda.grid(1), rows * cols
        budget = Budget(rows, cols, row_keep, col_keep, at_most, cols + (1 if at_most else 0))
        tile = _tile_in(doubles[thread], flags[thread], rows, cols)
        rest = doubles[thread, 2 * size + rows + cols :]
        search = _search_in(rest, numbers[thread], flags[thread, 4 * size :], rows, budget.width)
        # Duals of at-most budgets are not negative.
        codes, low = flags[thread, 4 * size + rows :], 0.0 if at_most else -MAX_FLOAT
        for slot in range(thread, len(order), cuda.gridsize(1)):
            t = order[slot]
            top, left = (t // across) * rows, (t % across) * cols
            for at in range(size):
                i, j = top + at // cols, left + at % cols
                tile.w[at] = float(read(scores, i, j)) if i < scores.shape[0] and j < scores.shape[1] else 0.0
                tile.kept[at] = mask[i, j] if ready[t] else 0
                codes[at] = forced[i, j] if forced.size else 0
            scale = _prepare(tile, budget)
            for i in range(rows):
                tile.u[i] = max(low, row_duals[t, i] * scale)
            for j in range(cols):
                tile.v[j] = max(low, col_duals[t, j] * scale)
            _clear(search)
            if not _solve_tile(tile, budget, search, forced.size > 0, codes, ready[t] != 0):
                cuda.atomic.min(infeasible, 0, t)
                continue
            for at in range(size):
                mask[top + at // cols, left + at % cols] = tile.kept[at]
            for i in range(rows):
                row_duals[t, i] = max(-MAX_FLOAT, min(MAX_FLOAT, tile.u[i] / scale))
            for j in range(cols):
                col_duals[t, j] = max(-MAX_FLOAT, min(MAX_FLOAT, tile.v[j] / scale))

    return kernel(run)
