"""Negative-cycle cancelling, for tiles that have no proof of optimality because of float64 rounding.

Bellman-Ford runs from all nodes at once over reduced costs whose signs are exact. It ends either with duals that prove
the mask, or with a negative cycle. The gain of moving the entries along a cycle is summed in double-double precision.
"""

from __future__ import annotations

import numpy as np

from masksmith.kernels.jit import jit_without_refcounts
from masksmith.kernels.tile import Budget, Search, Tile, set_kept

from .augmentation import OUTER, ROOT
from .complementary_slackness import centre, is_proved, two_sum
from .relaxation import relax

CENTRINGS = 4
"""Maximum number of attempts to prove a mask by centring its duals."""
CYCLES = 8
"""Maximum number of negative cycles that are searched for."""


@jit_without_refcounts
def _signed_costs(tile: Tile, budget: Budget, search: Search) -> None:
    """Write reduced costs, which may be negative, of entries, row slacks and column slacks."""
    rows, cols = budget.rows, budget.cols
    padded_rows, padded_width = len(search.row_d), len(search.col_d)
    for i in range(rows):
        kept = 0
        for j in range(cols):
            at = i * cols + j
            total, rest = two_sum(tile.u[i], tile.v[j])
            cost = (total - tile.w[at]) + rest
            keep, free = tile.kept[at] != 0, tile.free[at] != 0
            search.add_cost[i * padded_width + j] = cost if free and not keep else np.inf
            search.drop_cost[j * padded_rows + i] = -cost if free and keep else np.inf
            kept += np.int64(keep)
        if budget.at_most:
            search.add_cost[i * padded_width + cols] = tile.u[i] if kept > 0 else np.inf
            search.drop_cost[cols * padded_rows + i] = -tile.u[i] if kept < budget.row_keep else np.inf
    for j in range(cols):
        count = 0
        for i in range(rows):
            count += np.int64(tile.kept_t[j * rows + i])
        search.slack[j] = budget.col_keep - count


@jit_without_refcounts
def _relax_outer(tile: Tile, budget: Budget, search: Search) -> int:
    """Relax the edges between columns and the outer node; return a node whose distance decreased, or -1."""
    cols, changed = budget.cols, -1
    for j in range(cols):
        if search.slack[j] > 0 and search.col_d[j] - tile.v[j] < search.col_d[cols]:
            search.col_d[cols] = search.col_d[j] - tile.v[j]
            search.col_from[cols] = OUTER - 1 - j
            changed = cols
    for j in range(cols):
        if search.slack[j] < budget.col_keep and search.col_d[cols] + tile.v[j] < search.col_d[j]:
            search.col_d[j] = search.col_d[cols] + tile.v[j]
            search.col_from[j] = OUTER
            changed = j
    return changed


@jit_without_refcounts
def _relax(tile: Tile, budget: Budget, search: Search) -> int:
    """Relax every edge once; return a column node whose distance decreased, or -1 if none did."""
    padded_rows, padded_width, changed = len(search.row_d), len(search.col_d), -1
    for j in range(budget.width):
        search.col_seen[j] = search.col_d[j]
        relax(search.drop_cost, j * padded_rows, search.col_d[j], j, search.row_d, search.row_from)
    for i in range(budget.rows):
        relax(search.add_cost, i * padded_width, search.row_d[i], i, search.col_d, search.col_from)
    for j in range(budget.width):
        if search.col_d[j] < search.col_seen[j]:
            changed = j
    return max(changed, _relax_outer(tile, budget, search)) if budget.at_most else changed


@jit_without_refcounts
def _bellman_ford(tile: Tile, budget: Budget, search: Search) -> int:
    """Run Bellman-Ford; return a node that a negative cycle leads to, or -1 if the distances converged."""
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


@jit_without_refcounts
def _predecessor(budget: Budget, search: Search, node: int) -> tuple[int, int]:
    """Return the edge into a column node: the row it passes (or the code of an outer edge), and the previous column."""
    i = search.col_from[node]
    if i == ROOT:
        return ROOT, -1
    if i == OUTER:
        return OUTER, budget.cols
    if i < OUTER:
        return i, OUTER - 1 - i
    return i, search.row_from[i]


@jit_without_refcounts
def _gain(tile: Tile, budget: Budget, search: Search, start: int) -> float:
    """Return the gain of moving entries along the cycle through `start`; 0 if it is no cycle or repeats a row."""
    cols, node, high, low = budget.cols, start, 0.0, 0.0
    search.used[:] = 0
    for _ in range(2 * (budget.rows + budget.width)):
        i, back = _predecessor(budget, search, node)
        if back < 0 or (i >= 0 and search.used[i]):
            return 0.0
        if i >= 0:
            search.used[i] = 1
            for j, sign in ((node, 1.0), (back, -1.0)):
                if j < cols:
                    high, rest = two_sum(high, sign * tile.w[i * cols + j])
                    low += rest
        node = back
        if node == start:
            return high + low
    return 0.0


@jit_without_refcounts
def _cancel(tile: Tile, budget: Budget, search: Search, node: int) -> bool:
    """Move entries along the cycle that leads to `node`; return False, and move none, if its gain is not positive."""
    rows, cols = budget.rows, budget.cols
    for _ in range(2 * (rows + budget.width)):
        i, back = _predecessor(budget, search, node)
        if back < 0:
            return False
        node = back
    if not _gain(tile, budget, search, node) > 0.0:
        return False
    start = node
    while True:
        i, back = _predecessor(budget, search, node)
        if i >= 0:
            if node < cols:
                set_kept(tile, rows, cols, i, node, 1)
            if back < cols:
                set_kept(tile, rows, cols, i, back, 0)
        node = back
        if node == start:
            return True


@jit_without_refcounts
def _update_duals(tile: Tile, budget: Budget, search: Search) -> None:
    """Add the distances to the duals; at-most budgets clamp them to at least 0."""
    outer = search.col_d[budget.cols] if budget.at_most else 0.0
    low = 0.0 if budget.at_most else -np.inf
    for i in range(budget.rows):
        tile.u[i] = max(low, tile.u[i] + (search.row_d[i] - outer))
    for j in range(budget.cols):
        tile.v[j] = max(low, tile.v[j] + (outer - search.col_d[j]))


@jit_without_refcounts
def _centre_until_proved(tile: Tile, budget: Budget) -> bool:
    for _ in range(CENTRINGS):
        centre(tile, budget)
        if is_proved(tile, budget):
            return True
    return False


@jit_without_refcounts
def polish(tile: Tile, budget: Budget, search: Search) -> bool:
    """Find duals that prove the mask, cancelling negative cycles if it is not optimal.

    Changes the mask and the duals of `tile` in place. Returns whether a proof was found.
    """
    if is_proved(tile, budget) or _centre_until_proved(tile, budget):
        return True
    for _ in range(CYCLES):
        _signed_costs(tile, budget, search)
        node = _bellman_ford(tile, budget, search)
        if node < 0:
            _update_duals(tile, budget, search)
            break
        if not _cancel(tile, budget, search, node):
            break
    return is_proved(tile, budget) or _centre_until_proved(tile, budget)
