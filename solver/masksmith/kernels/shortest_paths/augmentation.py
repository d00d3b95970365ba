"""Successive shortest augmenting paths from columns with too many entries to columns with too few.

Distances are sums of reduced costs, which complementary slackness keeps non-negative. A dual update after each search
makes every edge of the shortest-path forest tight (its reduced cost is 0), so entries can be moved along several paths
of the forest at once, if no two of these share a row. Every phase moves at least one entry; a search that reaches no
deficient column proves that there is no allowed mask.

With at-most budgets, the outer node (column `cols`, dual 0) has edges in both directions. From a row to it, the cost is
u >= 0: the row keeps one entry less; from it to a row with unfilled budget, 0: the row keeps one more. From it to a
column, the cost is v >= 0; from a column with unfilled budget to it, 0. Its balance follows from that of the columns.
"""

from __future__ import annotations

import numpy as np

from masksmith.kernels.jit import jit_without_refcounts
from masksmith.kernels.tile import Budget, Search, Tile, set_kept

from .free_moves import move_free
from .relaxation import relax

ROOT = -1
"""Code in `col_from` of a column that was not reached from another node."""
OUTER = -2
"""Code in `col_from` of a column that was reached from the outer node.

The code of the outer node itself, if it was reached from column j, is `OUTER - 1 - j`.
"""


@jit_without_refcounts
def _count_excess(tile: Tile, budget: Budget, search: Search) -> bool:
    """Write `excess` and `slack` of every column; return whether all budgets hold."""
    total, balanced = 0, True
    for j in range(budget.cols):
        count = -budget.col_keep
        for i in range(budget.rows):
            count += np.int64(tile.kept_t[j * budget.rows + i])
        search.slack[j] = 0
        if count < 0 and budget.at_most and tile.v[j] <= 0.0:
            search.slack[j] = -count
            count = 0
        search.excess[j] = count
        total += count
        balanced = balanced and count == 0
    if budget.at_most:
        search.excess[budget.cols] = -total
    return balanced


@jit_without_refcounts
def _write_costs(tile: Tile, budget: Budget, search: Search) -> None:
    """Write the reduced costs `add_cost` and `drop_cost`, clamped to 0 where rounding makes them negative."""
    rows, cols = budget.rows, budget.cols
    padded_rows, padded_width = len(search.row_d), len(search.col_d)
    for i in range(rows):
        kept = 0
        for j in range(cols):
            at = i * cols + j
            cost = max(0.0, tile.u[i] + tile.v[j] - tile.w[at])
            search.add_cost[i * padded_width + j] = cost if tile.free[at] > tile.kept[at] else np.inf
            kept += np.int64(tile.kept[at])
        if budget.at_most:
            search.add_cost[i * padded_width + cols] = tile.u[i]
            search.drop_cost[cols * padded_rows + i] = 0.0 if kept < budget.row_keep else np.inf
    for j in range(cols):
        for i in range(rows):
            at = j * rows + i
            cost = max(0.0, tile.w_t[at] - tile.u[i] - tile.v[j])
            search.drop_cost[j * padded_rows + i] = cost if tile.free_t[at] & tile.kept_t[at] else np.inf


@jit_without_refcounts
def _expand_cols(tile: Tile, budget: Budget, search: Search, limit: float) -> bool:
    """Relax the edges out of every column that is closer than when it was last expanded; return whether any is."""
    cols, padded_rows, any_expanded = budget.cols, len(search.row_d), False
    for j in range(budget.width):
        distance = search.col_d[j]
        if distance >= search.col_seen[j] or distance >= limit:
            continue
        search.col_seen[j] = distance
        any_expanded = True
        relax(search.drop_cost, j * padded_rows, distance, j, search.row_d, search.row_from)
        if budget.at_most and j < cols and search.slack[j] > 0 and distance < search.col_d[cols]:
            search.col_d[cols] = distance
            search.col_from[cols] = OUTER - 1 - j
        elif j == cols and budget.at_most:
            for k in range(cols):
                if distance + tile.v[k] < search.col_d[k]:
                    search.col_d[k] = distance + tile.v[k]
                    search.col_from[k] = OUTER
    return any_expanded


@jit_without_refcounts
def _expand_rows(budget: Budget, search: Search, limit: float) -> None:
    padded_width = len(search.col_d)
    for i in range(budget.rows):
        distance = search.row_d[i]
        if distance >= search.row_seen[i] or distance >= limit:
            continue
        search.row_seen[i] = distance
        relax(search.add_cost, i * padded_width, distance, i, search.col_d, search.col_from)


@jit_without_refcounts
def _farthest_sink(budget: Budget, search: Search, reachable_only: bool) -> float:
    """Return the largest distance of a deficient node, of all or only of the reachable ones; -inf if there is none."""
    far = -np.inf
    for j in range(budget.width):
        d = search.col_d[j]
        if search.excess[j] < 0 and d > far and not (reachable_only and d == np.inf):
            far = d
    return far


@jit_without_refcounts
def _search(tile: Tile, budget: Budget, search: Search) -> float:
    """Compute shortest paths from all columns with excess.

    Returns the distance up to which they are final, or -inf if no deficient node is reachable.
    """
    for i in range(budget.rows):
        search.row_d[i] = search.row_seen[i] = np.inf
        search.used[i] = 0
    for j in range(budget.width):
        search.col_d[j] = 0.0 if search.excess[j] > 0 else np.inf
        search.col_seen[j] = np.inf
        search.col_from[j] = ROOT
    limit = np.inf
    while _expand_cols(tile, budget, search, limit):
        _expand_rows(budget, search, limit)
        limit = _farthest_sink(budget, search, False)
    return _farthest_sink(budget, search, True)


@jit_without_refcounts
def _update_duals(tile: Tile, budget: Budget, search: Search, limit: float) -> None:
    """Update the duals so that the edges of the shortest-path forest are tight; the outer node's dual stays 0."""
    outer = min(search.col_d[budget.cols], limit) if budget.at_most else 0.0
    for i in range(budget.rows):
        # In this order rounding is monotone: non-negative duals stay so, and those that become 0 are exactly 0.
        tile.u[i] = tile.u[i] + min(search.row_d[i], limit) - outer
    for j in range(budget.cols):
        tile.v[j] = tile.v[j] + outer - min(search.col_d[j], limit)


@jit_without_refcounts
def _root(budget: Budget, search: Search, sink: int) -> int:
    """Follow the path to `sink` back to its source; -1 if another path of this phase has used a part of it."""
    node = sink
    for _ in range(2 * (budget.rows + budget.width)):
        i = search.col_from[node]
        if i == ROOT:
            return node if search.excess[node] > 0 else -1
        if i == OUTER:
            node = budget.cols
        elif i < OUTER:
            node = OUTER - 1 - i
            if search.slack[node] == 0:
                return -1
        elif search.used[i]:
            return -1
        else:
            node = search.row_from[i]
    return -1


@jit_without_refcounts
def _move(tile: Tile, budget: Budget, search: Search, sink: int, root: int) -> None:
    """Move one entry along the path from `root` to `sink`."""
    rows, cols, node = budget.rows, budget.cols, sink
    while True:
        i = search.col_from[node]
        if i == ROOT:
            break
        if i == OUTER:
            search.slack[node] += 1
            node = cols
        elif i < OUTER:
            node = OUTER - 1 - i
            search.slack[node] -= 1
        else:
            search.used[i] = 1
            if node < cols:
                set_kept(tile, rows, cols, i, node, 1)
            node = search.row_from[i]
            if node < cols:
                set_kept(tile, rows, cols, i, node, 0)
    search.excess[sink] += 1
    search.excess[root] -= 1


@jit_without_refcounts
def _try_path(tile: Tile, budget: Budget, search: Search, sink: int) -> int:
    root = _root(budget, search, sink)
    if root < 0:
        return 0
    _move(tile, budget, search, sink, root)
    return 1


@jit_without_refcounts
def _augment(tile: Tile, budget: Budget, search: Search, limit: float) -> int:
    """Move entries along disjoint tight paths; return the number of paths."""
    moved, cols = 0, budget.cols
    for j in range(budget.width):
        if search.excess[j] < 0 and search.col_d[j] <= limit:
            moved += _try_path(tile, budget, search, j)
    if budget.at_most and search.excess[cols] < 0:
        # Paths may also end in a row with dual 0, which may keep one entry less.
        for i in range(budget.rows):
            if search.excess[cols] < 0 and search.row_d[i] <= limit and tile.u[i] == 0.0 and not search.used[i]:
                search.col_from[cols] = i
                moved += _try_path(tile, budget, search, cols)
    return moved


@jit_without_refcounts
def balance_columns(tile: Tile, budget: Budget, search: Search) -> bool:
    """Run phases until every column satisfies its budget; return False if there is no allowed mask.

    Changes the mask and the duals of `tile` in place. Each phase reduces the total excess by at least 1; the limit on
    their number only guards against failing arithmetic (overflow, NaN).
    """
    for _ in range(2 * budget.rows * budget.cols + 2):
        if _count_excess(tile, budget, search):
            return True
        _write_costs(tile, budget, search)
        if move_free(tile, budget, search) and _count_excess(tile, budget, search):
            return True
        limit = _search(tile, budget, search)
        if limit == -np.inf:
            return False
        _update_duals(tile, budget, search, limit)
        _augment(tile, budget, search, limit)
    return False
