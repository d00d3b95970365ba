"""Duals of a given optimal mask: shortest paths in its residual graph, for many tiles at once.

The residual graph of a mask S has a node for every row and column. Labels p (rows) and q (columns) that obey

    q_j <= p_i - w_ij   for every dropped entry (it could be added),
    p_i <= q_j + w_ij   for every kept entry (it could be given up)

are the duals `u = p`, `v = -q`: complementary slackness, word for word. Bellman and Ford find such labels, starting
from any, unless a cycle of negative length exists; then turning the cycle over improves the mask, which was no optimum.
Budgets that are upper limits add one node z with `z <= p_i`, `q_j <= z`, and equality where a budget is not used up;
`u = p - z` and `v = z - q` are then non-negative, and zero where they must be.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from masksmith._panels import Bools
from masksmith.patterns import TileSpec

Numbers = npt.NDArray[Any]
CHUNK_ENTRIES = 1 << 15
"""Entries handled at once: what a second-level cache holds of all the arrays."""


@dataclass(slots=True)
class _Graph:
    """Residual graphs with tiles along the last axis: `add`, `give` `[R, C, T]`, `row_slack` `[R, T]`, `col_slack`."""

    add: Numbers
    give: Numbers
    row_slack: Bools | None
    col_slack: Bools | None

    def only(self, tiles: Bools) -> _Graph:
        slack = [None if s is None else s[:, tiles] for s in (self.row_slack, self.col_slack)]
        return _Graph(self.add[:, :, tiles], self.give[:, :, tiles], *slack)


def residual_duals(
    scores: Numbers, mask: Bools, tile: TileSpec, free: Bools | None = None
) -> tuple[Numbers, Numbers, Bools]:
    """Find duals that prove masks optimal.

    Exact when no label overflows the type: int64 scores below `2^(62 - log2(R + C))`, or float64 scores that are
    integer multiples of one power of two, at most `2^53 / (R + C)` times it.

    Args:
        scores: `[T, R, C]`, int64 or float64.
        mask: `[T, R, C]`.
        tile: Budgets, exact or upper limits.
        free: `[T, R, C]`, False where an entry is forced; None when all are free.

    Returns:
        Row duals `[T, R]` and column duals `[T, C]` in the type of `scores`, and `[T]` whether the labels settled
        (False: the mask is not optimal, or rounding pretends so; the duals are then near misses).
    """
    count, rows, cols = scores.shape
    u, v = np.empty((count, rows), scores.dtype), np.empty((count, cols), scores.dtype)
    settled = np.empty(count, np.bool_)
    step = max(1, CHUNK_ENTRIES // (rows * cols))
    for at in range(0, count, step):
        part = slice(at, at + step)
        graph = _graph(scores[part], mask[part], tile, None if free is None else free[part])
        p, q, z, settled[part] = _settle(graph, rows + cols + 2)
        u[part], v[part] = (p - z).T, (z - q).T
    return u, v, settled


def _graph(scores: Numbers, mask: Bools, tile: TileSpec, free: Bools | None) -> _Graph:
    lanes, kept = np.ascontiguousarray(scores.transpose(1, 2, 0)), np.ascontiguousarray(mask.transpose(1, 2, 0))
    far = np.inf if lanes.dtype == np.float64 else np.int64(1) << 62
    add, give = np.where(kept, far, -lanes), np.where(kept, lanes, far)
    if free is not None:
        forced = ~free.transpose(1, 2, 0)
        add[forced] = give[forced] = far
    if not tile.at_most:
        return _Graph(add, give, None, None)
    return _Graph(add, give, kept.sum(1) < tile.row_keep, kept.sum(0) < tile.col_keep)


def _settle(graph: _Graph, rounds: int) -> tuple[Numbers, Numbers, Numbers, Bools]:
    """Relax until nothing changes; tiles that settle early leave the batch."""
    rows, cols, count = graph.add.shape
    p, q = np.zeros((rows, count), graph.add.dtype), np.zeros((cols, count), graph.add.dtype)
    z, open_tiles = np.zeros(count, graph.add.dtype), np.arange(count)
    live = (p.copy(), q.copy(), z.copy())
    for _ in range(rounds):
        new = _relax(graph, *live)
        moved = (new[0] != live[0]).any(0) | (new[1] != live[1]).any(0) | (new[2] != live[2])
        live = new
        if moved.mean() < 0.7 or not moved.any():
            p[:, open_tiles], q[:, open_tiles], z[open_tiles] = live
            open_tiles, graph = open_tiles[moved], graph.only(moved)
            live = (live[0][:, moved], live[1][:, moved], live[2][moved])
        if not open_tiles.size:
            break
    p[:, open_tiles], q[:, open_tiles], z[open_tiles] = live
    settled = np.ones(count, np.bool_)
    settled[open_tiles] = False
    return p, q, z, settled


def _relax(graph: _Graph, p: Numbers, q: Numbers, z: Numbers) -> tuple[Numbers, Numbers, Numbers]:
    """Let every arc shorten its head's label once: into the columns, then the rows, then z."""
    q = np.minimum(q, (p[:, None] + graph.add).min(0))
    if graph.col_slack is not None and graph.row_slack is not None:
        q = np.minimum(q, z)
        z = np.minimum(z, np.where(graph.col_slack, q, 0).min(0))
        p = np.where(graph.row_slack, np.minimum(p, z), p)
    p = np.minimum(p, (q[None] + graph.give).min(1))
    if graph.row_slack is not None:
        z = np.minimum(z, p.min(0))
    return p, q, z
