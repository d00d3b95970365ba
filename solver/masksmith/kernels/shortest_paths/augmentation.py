"""Mending columns: phases of a shortest-path search from columns with too many entries to columns with too few.

Distances are sums of reduced costs, which complementary slackness keeps non-negative. After a search every edge of the
shortest-path forest becomes tight, so entries can be moved along several of its paths at once, as long as no two share
a row. Every phase moves at least one; a search that reaches no column in need proves that there is no allowed mask.

Where budgets are limits, the outer node (column `cols`, potential 0) has edges to rows (an unused place of a row, price
u >= 0) and to columns (likewise, price v >= 0); its own balance follows from that of the columns.
"""

from __future__ import annotations

import numpy as np

from masksmith.kernels.jit import borrow
from masksmith.kernels.tile import Budget, Search, Tile, put

from .free_moves import move_free
from .relaxation import relax

ROOT = -1
OUTER = -2
"""`col_from` of a column reached from the outer node; the outer node reached from column j has `OUTER - 1 - j`."""


@borrow
def _balance(tile: Tile, budget: Budget, search: Search) -> bool:
    """Count every column; True when no one has too many or too few."""
    total, balanced = 0, True
    for j in range(budget.cols):
        count = -budget.col_keep
        for i in range(budget.rows):
            count += np.int64(tile.kept_t[j * budget.rows + i])
        search.spare[j] = 0
        if count < 0 and budget.at_most and tile.v[j] <= 0.0:
            search.spare[j] = -count
            count = 0
        search.excess[j] = count
        total += count
        balanced = balanced and count == 0
    if budget.at_most:
        search.excess[budget.cols] = -total
    return balanced


@borrow
def _costs(tile: Tile, budget: Budget, search: Search) -> None:
    """Write the reduced costs; rounding may leave them a hair below zero, which they must not be."""
    rows, cols = budget.rows, budget.cols
    tall, wide = len(search.row_d), len(search.col_d)
    for i in range(rows):
        kept = 0
        for j in range(cols):
            at = i * cols + j
            cost = max(0.0, tile.u[i] + tile.v[j] - tile.w[at])
            search.take[i * wide + j] = cost if tile.free[at] > tile.kept[at] else np.inf
            kept += np.int64(tile.kept[at])
        if budget.at_most:
            search.take[i * wide + cols] = tile.u[i]
            search.give[cols * tall + i] = 0.0 if kept < budget.row_keep else np.inf
    for j in range(cols):
        for i in range(rows):
            at = j * rows + i
            cost = max(0.0, tile.w_t[at] - tile.u[i] - tile.v[j])
            search.give[j * tall + i] = cost if tile.free_t[at] & tile.kept_t[at] else np.inf


@borrow
def _expand_cols(tile: Tile, budget: Budget, search: Search, limit: float) -> bool:
    """Relax the edges out of every column that came nearer since it was last expanded."""
    cols, tall, any_new = budget.cols, len(search.row_d), False
    for j in range(budget.width):
        near = search.col_d[j]
        if near >= search.col_seen[j] or near >= limit:
            continue
        search.col_seen[j] = near
        any_new = True
        relax(search.give, j * tall, near, j, search.row_d, search.row_from)
        if budget.at_most and j < cols and search.spare[j] > 0 and near < search.col_d[cols]:
            search.col_d[cols] = near
            search.col_from[cols] = OUTER - 1 - j
        elif j == cols and budget.at_most:
            for k in range(cols):
                if near + tile.v[k] < search.col_d[k]:
                    search.col_d[k] = near + tile.v[k]
                    search.col_from[k] = OUTER
    return any_new


@borrow
def _expand_rows(budget: Budget, search: Search, limit: float) -> None:
    wide = len(search.col_d)
    for i in range(budget.rows):
        near = search.row_d[i]
        if near >= search.row_seen[i] or near >= limit:
            continue
        search.row_seen[i] = near
        relax(search.take, i * wide, near, i, search.col_d, search.col_from)


@borrow
def _farthest_sink(budget: Budget, search: Search, reached: bool) -> float:
    """Distance of the farthest node in need, of all or only of those that can be reached; -inf if there is none."""
    far = -np.inf
    for j in range(budget.width):
        d = search.col_d[j]
        if search.excess[j] < 0 and d > far and not (reached and d == np.inf):
            far = d
    return far


@borrow
def _search(tile: Tile, budget: Budget, search: Search) -> float:
    """Find shortest paths from all sources at once; give the distance up to which they hold, -inf if none ends."""
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


@borrow
def _reprice(tile: Tile, budget: Budget, search: Search, limit: float) -> None:
    """Make the edges of the forest tight; the outer node's potential stays 0."""
    outer = min(search.col_d[budget.cols], limit) if budget.at_most else 0.0
    for i in range(budget.rows):
        # In this order rounding is monotone: what must stay non-negative does, and what becomes tight is exactly 0.
        tile.u[i] = tile.u[i] + min(search.row_d[i], limit) - outer
    for j in range(budget.cols):
        tile.v[j] = tile.v[j] + outer - min(search.col_d[j], limit)


@borrow
def _root(budget: Budget, search: Search, sink: int) -> int:
    """Follow a path back to its source; -1 if something on it was used up in this phase."""
    node = sink
    for _ in range(2 * (budget.rows + budget.width)):
        i = search.col_from[node]
        if i == ROOT:
            return node if search.excess[node] > 0 else -1
        if i == OUTER:
            node = budget.cols
        elif i < OUTER:
            node = OUTER - 1 - i
            if search.spare[node] == 0:
                return -1
        elif search.used[i]:
            return -1
        else:
            node = search.row_from[i]
    return -1


@borrow
def _move(tile: Tile, budget: Budget, search: Search, sink: int, root: int) -> None:
    """Move one entry along the path from `root` to `sink`."""
    rows, cols, node = budget.rows, budget.cols, sink
    while True:
        i = search.col_from[node]
        if i == ROOT:
            break
        if i == OUTER:
            search.spare[node] += 1
            node = cols
        elif i < OUTER:
            node = OUTER - 1 - i
            search.spare[node] -= 1
        else:
            search.used[i] = 1
            if node < cols:
                put(tile, rows, cols, i, node, 1)
            node = search.row_from[i]
            if node < cols:
                put(tile, rows, cols, i, node, 0)
    search.excess[sink] += 1
    search.excess[root] -= 1


@borrow
def _try_path(tile: Tile, budget: Budget, search: Search, sink: int) -> int:
    root = _root(budget, search, sink)
    if root < 0:
        return 0
    _move(tile, budget, search, sink, root)
    return 1


@borrow
def _augment(tile: Tile, budget: Budget, search: Search, limit: float) -> int:
    """Move entries along disjoint tight paths; give their number."""
    moved, cols = 0, budget.cols
    for j in range(budget.width):
        if search.excess[j] < 0 and search.col_d[j] <= limit:
            moved += _try_path(tile, budget, search, j)
    if budget.at_most and search.excess[cols] < 0:
        # Any row that can go without its place for nothing is another way out.
        for i in range(budget.rows):
            if search.excess[cols] < 0 and search.row_d[i] <= limit and tile.u[i] == 0.0 and not search.used[i]:
                search.col_from[cols] = i
                moved += _try_path(tile, budget, search, cols)
    return moved


@borrow
def mend(tile: Tile, budget: Budget, search: Search) -> bool:
    """Run phases until every column fits its budget; False if there is no allowed mask.

    Each phase moves at least one entry towards its place; the cap only guards against arithmetic that breaks down.
    """
    for _ in range(2 * budget.rows * budget.cols + 2):
        if _balance(tile, budget, search):
            return True
        _costs(tile, budget, search)
        if move_free(tile, budget, search) and _balance(tile, budget, search):
            return True
        limit = _search(tile, budget, search)
        if limit == -np.inf:
            return False
        _reprice(tile, budget, search, limit)
        _augment(tile, budget, search, limit)
    return False
