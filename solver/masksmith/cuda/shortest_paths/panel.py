"""Solves the tiles that dual ascent left unsolved with the CPU's shortest-path kernels, one thread per tile.

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
from masksmith.kernels.tile import Budget, Search, Tile

HUGE, SHRINK, LARGEST = 2.0**1000, 2.0**-64, 1.7976931348623157e308


def scratch_sizes(budget: Budget) -> tuple[int, int, int]:
    """Return the numbers of doubles, integers and bytes in the work arrays of one thread."""
    rows, cols, width = budget.rows, budget.cols, budget.width
    size, tall, wide = rows * cols, (rows + 7) // 8 * 8, (width + 7) // 8 * 8
    doubles = 2 * size + rows + cols + rows * wide + width * tall + tall + wide + rows + width
    return doubles, tall + wide + 2 * width, 5 * size + rows


@device
def _tile_in(doubles: Any, flags: Any, rows: int, cols: int) -> Tile:
    size, duals = rows * cols, doubles[2 * rows * cols :]
    return Tile(
        doubles[:size], doubles[size : 2 * size], flags[:size], flags[size : 2 * size], flags[2 * size : 3 * size],
        flags[3 * size : 4 * size], duals[:rows], duals[rows : rows + cols],
    )  # fmt: skip


@device
def _search_in(doubles: Any, numbers: Any, flags: Any, rows: int, width: int) -> Search:
    tall, wide = (rows + 7) // 8 * 8, (width + 7) // 8 * 8
    drop_cost, row_d = rows * wide, rows * wide + width * tall
    col_d, row_seen = row_d + tall, row_d + tall + wide
    col_seen = row_seen + rows
    return Search(
        doubles[:drop_cost], doubles[drop_cost:row_d], doubles[row_d:col_d], doubles[col_d:row_seen],
        doubles[row_seen:col_seen],
        doubles[col_seen : col_seen + width], numbers[:tall], numbers[tall : tall + wide],
        numbers[tall + wide : tall + wide + width], numbers[tall + wide + width : tall + wide + 2 * width],
        flags[:rows],
    )  # fmt: skip


@device
def _solve_tile(tile: Tile, budget: Budget, search: Search, has_forced: bool, codes: Any, ready: bool) -> int:
    """Solve the tile; return 0 if it has no allowed mask, else 1."""
    if has_forced and not fix_forced(tile, budget, codes):
        return 0
    if not ready:
        initialise_wide_duals(tile, budget, search)
        if not initialise_tile(tile, budget, search):
            return 0
    if not balance_columns(tile, budget, search):
        return 0
    if not is_proved(tile, budget):
        polish(tile, budget, search)
    return 1


@device
def _mirror(tile: Tile, budget: Budget) -> float:
    """Fill the transposed copies; scale the scores so that sums cannot overflow; return the scale, a power of two."""
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
    """Set all left costs, padding included, to infinity."""
    for at in range(len(search.add_cost)):
        search.add_cost[at] = math.inf
    for at in range(len(search.drop_cost)):
        search.drop_cost[at] = math.inf


@cache
def compile_path_kernel(element: str) -> Any:
    """Compile the kernel, one for all tile sizes; thread k solves every `gridsize`-th tile of `order` from the k-th on.

    `doubles`, `numbers` and `flags` are work arrays `[threads, scratch_sizes(...)]`. Other arguments as for the passes;
    `infeasible[0]` is lowered to the index of the first tile without an allowed mask.
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
        codes, low = flags[thread, 4 * size + rows :], 0.0 if at_most else -LARGEST
        for slot in range(thread, len(order), cuda.gridsize(1)):
            t = order[slot]
            top, left = (t // across) * rows, (t % across) * cols
            for at in range(size):
                i, j = top + at // cols, left + at % cols
                tile.w[at] = float(read(scores, i, j)) if i < scores.shape[0] and j < scores.shape[1] else 0.0
                tile.kept[at] = mask[i, j] if ready[t] else 0
                codes[at] = forced[i, j] if forced.size else 0
            scale = _mirror(tile, budget)
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
                row_duals[t, i] = max(-LARGEST, min(LARGEST, tile.u[i] / scale))
            for j in range(cols):
                col_duals[t, j] = max(-LARGEST, min(LARGEST, tile.v[j] / scale))

    return kernel(run)
