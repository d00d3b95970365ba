"""Moves that cost nothing: depth-first search along tight edges, before any distance is computed.

With ties most columns in need can be served this way. Every row and column is visited once a phase, so that a phase
costs no more than looking at each entry once.
"""

from __future__ import annotations

from masksmith.kernels.jit import borrow
from masksmith.kernels.tile import Budget, Search, Tile, put


@borrow
def _swap(tile: Tile, budget: Budget, search: Search, i: int, taken: int, given: int) -> None:
    """Let row i keep `taken` instead of `given`, and mend the costs of both."""
    tall, wide = len(search.row_d), len(search.col_d)
    if taken < budget.cols:
        put(tile, budget.rows, budget.cols, i, taken, 1)
        search.take[i * wide + taken], search.give[taken * tall + i] = float("inf"), 0.0
    put(tile, budget.rows, budget.cols, i, given, 0)
    search.take[i * wide + given], search.give[given * tall + i] = 0.0, float("inf")


@borrow
def _visit(tile: Tile, budget: Budget, search: Search, source: int) -> bool:
    """Look for a column in need behind `source` and move one entry there.

    `row_from` holds the column that a row was entered from, `col_from` the row; `row_seen` and `col_seen` are 1 where
    already visited; `col_d` keeps the stack.
    """
    rows, cols, width = budget.rows, budget.cols, budget.width
    tall, wide = len(search.row_d), len(search.col_d)
    search.col_d[0], depth = source, 1
    search.col_seen[source], search.col_from[source] = 1.0, -1
    while depth > 0:
        depth -= 1
        j = int(search.col_d[depth])
        for i in range(rows):
            if search.row_seen[i] != 0.0 or search.give[j * tall + i] != 0.0:
                continue
            search.row_seen[i], search.row_from[i] = 1.0, j
            for k in range(width):
                if search.take[i * wide + k] != 0.0 or search.col_seen[k] != 0.0:
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


@borrow
def move_free(tile: Tile, budget: Budget, search: Search) -> bool:
    """Move entries from columns with too many to columns with too few as long as that costs nothing; True if any was.

    The outer node only ends paths here.
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
