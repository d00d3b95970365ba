"""Augmentation along tight edges (reduced cost 0) by depth-first search, before any shortest-path search.

With ties, most deficient columns can be filled this way. A phase visits every row and column at most once, so it reads
each entry at most once.
"""

from __future__ import annotations

from masksmith.kernels.jit import jit_without_refcounts
from masksmith.kernels.tile import Budget, Search, Tile, set_kept


@jit_without_refcounts
def _swap(tile: Tile, budget: Budget, search: Search, i: int, added: int, dropped: int) -> None:
    """Let row i keep column `added` instead of `dropped`, and update the reduced costs of both entries."""
    padded_rows, padded_width = len(search.row_d), len(search.col_d)
    if added < budget.cols:
        set_kept(tile, budget.rows, budget.cols, i, added, 1)
        search.add_cost[i * padded_width + added], search.drop_cost[added * padded_rows + i] = float("inf"), 0.0
    set_kept(tile, budget.rows, budget.cols, i, dropped, 0)
    search.add_cost[i * padded_width + dropped], search.drop_cost[dropped * padded_rows + i] = 0.0, float("inf")


@jit_without_refcounts
def _visit(tile: Tile, budget: Budget, search: Search, source: int) -> bool:
    """Search for a tight path from `source` to a deficient column, and move one entry along it; return if one exists.

    Uses arrays of `search` as follows: `row_from` and `col_from` hold predecessors, `row_seen` and `col_seen` are 1
    for visited nodes, `col_d` is the stack.
    """
    rows, cols, width = budget.rows, budget.cols, budget.width
    padded_rows, padded_width = len(search.row_d), len(search.col_d)
    search.col_d[0], depth = source, 1
    search.col_seen[source], search.col_from[source] = 1.0, -1
    while depth > 0:
        depth -= 1
        j = int(search.col_d[depth])
        for i in range(rows):
            if search.row_seen[i] != 0.0 or search.drop_cost[j * padded_rows + i] != 0.0:
                continue
            search.row_seen[i], search.row_from[i] = 1.0, j
            for k in range(width):
                if search.add_cost[i * padded_width + k] != 0.0 or search.col_seen[k] != 0.0:
                    continue
                search.col_from[k] = i
                if search.excess[k] < 0:
                    search.excess[k] += 1
                    search.excess[source] -= 1
                    while k != source:
                        i = search.col_from[k]
                        _swap(tile, budget, search, i, k, search.row_from[i])
                        k = search.row_from[i]
                    return True
                if k < cols:
                    search.col_seen[k] = 1.0
                    search.col_d[depth] = k
                    depth += 1
    return False


@jit_without_refcounts
def move_free(tile: Tile, budget: Budget, search: Search) -> bool:
    """Move entries from columns with excess to deficient columns along tight paths; return whether any was moved.

    Changes `tile` and `search.excess` in place. The outer node is only used as an end of paths.
    """
    moved, again = False, True
    while again:
        again = False
        search.row_seen[:] = 0.0
        search.col_seen[:] = 0.0
        for source in range(budget.cols):
            while search.excess[source] > 0 and _visit(tile, budget, search, source):
                moved = again = True
    return moved
