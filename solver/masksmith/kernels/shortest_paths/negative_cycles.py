"""The last resort where float64 had to round: improving cycles, and potentials from scratch.

Bellman-Ford from all nodes at once over exactly signed reduced costs. It ends in potentials that prove the mask,
or in a cycle of entries that is worth moving; whether it is worth it is summed with twice the digits.
"""

from __future__ import annotations

import numpy as np

from masksmith.kernels.jit import borrow
from masksmith.kernels.tile import Budget, Search, Tile, put

from .augmentation import OUTER, ROOT
from .complementary_slackness import centre, is_proved, sum_rest
from .relaxation import relax

CENTRINGS = 4
CYCLES = 8


@borrow
def _signed_costs(tile: Tile, budget: Budget, search: Search) -> None:
    """Write reduced costs that may be negative, for entries, places in rows and places in columns."""
    rows, cols = budget.rows, budget.cols
    tall, wide = len(search.row_d), len(search.col_d)
    for i in range(rows):
        kept = 0
        for j in range(cols):
            at = i * cols + j
            total, rest = sum_rest(tile.u[i], tile.v[j])
            cost = (total - tile.w[at]) + rest
            keep, free = tile.kept[at] != 0, tile.free[at] != 0
            search.take[i * wide + j] = cost if free and not keep else np.inf
            search.give[j * tall + i] = -cost if free and keep else np.inf
            kept += np.int64(keep)
        if budget.at_most:
            search.take[i * wide + cols] = tile.u[i] if kept > 0 else np.inf
            search.give[cols * tall + i] = -tile.u[i] if kept < budget.row_keep else np.inf
    for j in range(cols):
        count = 0
        for i in range(rows):
            count += np.int64(tile.kept_t[j * rows + i])
        search.spare[j] = budget.col_keep - count


@borrow
def _relax_outer(tile: Tile, budget: Budget, search: Search) -> int:
    """Relax the edges between columns and the outer node; give a node that came nearer, or -1."""
    cols, changed = budget.cols, -1
    for j in range(cols):
        if search.spare[j] > 0 and search.col_d[j] - tile.v[j] < search.col_d[cols]:
            search.col_d[cols] = search.col_d[j] - tile.v[j]
            search.col_from[cols] = OUTER - 1 - j
            changed = cols
    for j in range(cols):
        if search.spare[j] < budget.col_keep and search.col_d[cols] + tile.v[j] < search.col_d[j]:
            search.col_d[j] = search.col_d[cols] + tile.v[j]
            search.col_from[j] = OUTER
            changed = j
    return changed


@borrow
def _relax(tile: Tile, budget: Budget, search: Search) -> int:
    """Relax every edge once; give a column node that came nearer, or -1 when none did."""
    tall, wide, changed = len(search.row_d), len(search.col_d), -1
    for j in range(budget.width):
        search.col_seen[j] = search.col_d[j]
        relax(search.give, j * tall, search.col_d[j], j, search.row_d, search.row_from)
    for i in range(budget.rows):
        relax(search.take, i * wide, search.row_d[i], i, search.col_d, search.col_from)
    for j in range(budget.width):
        if search.col_d[j] < search.col_seen[j]:
            changed = j
    return max(changed, _relax_outer(tile, budget, search)) if budget.at_most else changed


@borrow
def _search_all(tile: Tile, budget: Budget, search: Search) -> int:
    """Run Bellman-Ford; give a node whose ancestors hold a cycle, or -1 when distances settled."""
    search.row_d[:] = 0.0
    search.col_d[:] = 0.0
    search.row_from[:] = ROOT
    search.col_from[:] = ROOT
    changed = -1
    for _ in range(budget.rows + budget.width + 2):
        changed = _relax(tile, budget, search)
        if changed < 0:
            return -1
    return changed


@borrow
def _before(budget: Budget, search: Search, node: int) -> tuple[int, int]:
    """Step back from a column to the column before it; the row between them, or the code of an outer edge."""
    i = search.col_from[node]
    if i == ROOT:
        return ROOT, -1
    if i == OUTER:
        return OUTER, budget.cols
    if i < OUTER:
        return i, OUTER - 1 - i
    return i, search.row_from[i]


@borrow
def _gain(tile: Tile, budget: Budget, search: Search, start: int) -> float:
    """What moving along the cycle through `start` is worth; 0 if it is none or passes a row twice."""
    cols, node, high, low = budget.cols, start, 0.0, 0.0
    search.used[:] = 0
    for _ in range(2 * (budget.rows + budget.width)):
        i, back = _before(budget, search, node)
        if back < 0 or (i >= 0 and search.used[i]):
            return 0.0
        if i >= 0:
            search.used[i] = 1
            for j, sign in ((node, 1.0), (back, -1.0)):
                if j < cols:
                    high, rest = sum_rest(high, sign * tile.w[i * cols + j])
                    low += rest
        node = back
        if node == start:
            return high + low
    return 0.0


@borrow
def _cancel(tile: Tile, budget: Budget, search: Search, node: int) -> bool:
    """Move entries along the cycle behind `node`; False if it is worth nothing after all."""
    rows, cols = budget.rows, budget.cols
    for _ in range(2 * (rows + budget.width)):
        i, back = _before(budget, search, node)
        if back < 0:
            return False
        node = back
    if not _gain(tile, budget, search, node) > 0.0:
        return False
    start = node
    while True:
        i, back = _before(budget, search, node)
        if i >= 0:
            if node < cols:
                put(tile, rows, cols, i, node, 1)
            if back < cols:
                put(tile, rows, cols, i, back, 0)
        node = back
        if node == start:
            return True


@borrow
def _move_all(tile: Tile, budget: Budget, search: Search) -> None:
    """Add distances to potentials; what rounding left below 0 under limits goes to 0."""
    outer = search.col_d[budget.cols] if budget.at_most else 0.0
    low = 0.0 if budget.at_most else -np.inf
    for i in range(budget.rows):
        tile.u[i] = max(low, tile.u[i] + (search.row_d[i] - outer))
    for j in range(budget.cols):
        tile.v[j] = max(low, tile.v[j] + (outer - search.col_d[j]))


@borrow
def _settle(tile: Tile, budget: Budget) -> bool:
    for _ in range(CENTRINGS):
        centre(tile, budget)
        if is_proved(tile, budget):
            return True
    return False


@borrow
def polish(tile: Tile, budget: Budget, search: Search) -> bool:
    """Make the potentials prove the mask, improving it where it was not the best; False if float64 cannot."""
    if is_proved(tile, budget) or _settle(tile, budget):
        return True
    for _ in range(CYCLES):
        _signed_costs(tile, budget, search)
        node = _search_all(tile, budget, search)
        if node < 0:
            _move_all(tile, budget, search)
            break
        if not _cancel(tile, budget, search, node):
            break
    return is_proved(tile, budget) or _settle(tile, budget)
