"""Duals of an optimal mask from shortest paths in its residual graph, for many tiles at once.

The residual graph of a mask S has a node for every row and column. Labels p (rows) and q (columns) that satisfy

    q_j <= p_i - w_ij   for every dropped entry (it could be added),
    p_i <= q_j + w_ij   for every kept entry (it could be removed)

define the duals `u = p`, `v = -q`: the inequalities are complementary slackness. The Bellman-Ford algorithm finds such
labels, from any start, unless there is a negative cycle; swapping kept and dropped entries along such a cycle improves
the mask, which therefore was not optimal. At-most budgets add one node z with `z <= p_i` and `q_j <= z`, and with
equality for rows and columns that are not full. The duals `u = p - z` and `v = z - q` are then non-negative, and zero
for rows and columns that are not full.
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
"""Entries processed at once, so that all arrays fit into a second-level cache."""
REPACK_SHARE = 0.7
"""Converged tiles are removed from a batch when less than this share of it still changes."""


@dataclass(slots=True)
class _Graph:
    """Residual graphs, with tiles along the last axis.

    Attributes:
        add_lengths: `[R, C, T]`, length of the arc that adds a dropped entry; infinite for kept and forced entries.
        remove_lengths: `[R, C, T]`, length of the arc that removes a kept entry; infinite for dropped and forced
            entries.
        slack: `[R, T]`, whether a row is not full, and `[C, T]`, whether a column is not full; None for exact budgets.
    """

    add_lengths: Numbers
    remove_lengths: Numbers
    slack: tuple[Bools, Bools] | None

    def subset(self, tiles: Bools) -> _Graph:
        slack = None if self.slack is None else (self.slack[0][:, tiles], self.slack[1][:, tiles])
        return _Graph(self.add_lengths[:, :, tiles], self.remove_lengths[:, :, tiles], slack)


def residual_duals(scores: Numbers, mask: Bools, tile: TileSpec, free: Bools | None = None) -> tuple[Numbers, Numbers]:
    """Compute duals that prove masks optimal.

    The result is exact if no label overflows the type: for int64 scores below `2^(62 - log2(R + C))`, or float64
    scores that are integer multiples of one power of two, at most `2^53 / (R + C)` times it.

    Args:
        scores: `[T, R, C]`, int64 or float64.
        mask: `[T, R, C]`.
        tile: Budgets, exact or upper limits.
        free: `[T, R, C]`, False where an entry is forced; None if all are free.

    Returns:
        Row duals `[T, R]` and column duals `[T, C]` in the type of `scores`. They prove nothing if the mask is not
        optimal, or if rounding errors made a cycle negative.
    """
    count, rows, cols = scores.shape
    u, v = np.empty((count, rows), scores.dtype), np.empty((count, cols), scores.dtype)
    step = max(1, CHUNK_ENTRIES // (rows * cols))
    for at in range(0, count, step):
        chunk = slice(at, at + step)
        graph = _graph(scores[chunk], mask[chunk], tile, None if free is None else free[chunk])
        p, q, z = _bellman_ford(graph, rows + cols + 2)
        u[chunk], v[chunk] = (p - z).T, (z - q).T
    return u, v


def _graph(scores: Numbers, mask: Bools, tile: TileSpec, free: Bools | None) -> _Graph:
    w, kept = np.ascontiguousarray(scores.transpose(1, 2, 0)), np.ascontiguousarray(mask.transpose(1, 2, 0))
    infinity = np.inf if w.dtype == np.float64 else np.int64(1) << 62
    add_lengths, remove_lengths = np.where(kept, infinity, -w), np.where(kept, w, infinity)
    if free is not None:
        forced = ~free.transpose(1, 2, 0)
        add_lengths[forced] = remove_lengths[forced] = infinity
    if not tile.at_most:
        return _Graph(add_lengths, remove_lengths, None)
    return _Graph(add_lengths, remove_lengths, (kept.sum(1) < tile.row_keep, kept.sum(0) < tile.col_keep))


def _bellman_ford(graph: _Graph, rounds: int) -> tuple[Numbers, Numbers, Numbers]:
    """Relax until no label changes, at most `rounds` times; return p, q and z."""
    rows, cols, count = graph.add_lengths.shape
    p, q = np.zeros((rows, count), graph.add_lengths.dtype), np.zeros((cols, count), graph.add_lengths.dtype)
    z, active = np.zeros(count, graph.add_lengths.dtype), np.arange(count)
    labels = (p.copy(), q.copy(), z.copy())
    for _ in range(rounds):
        new = _relax(graph, *labels)
        changed = (new[0] != labels[0]).any(0) | (new[1] != labels[1]).any(0) | (new[2] != labels[2])
        labels = new
        if changed.mean() < REPACK_SHARE:
            p[:, active], q[:, active], z[active] = labels
            active, graph = active[changed], graph.subset(changed)
            labels = (labels[0][:, changed], labels[1][:, changed], labels[2][changed])
        if not active.size:
            break
    p[:, active], q[:, active], z[active] = labels
    return p, q, z


def _relax(graph: _Graph, p: Numbers, q: Numbers, z: Numbers) -> tuple[Numbers, Numbers, Numbers]:
    """Relax every arc once: arcs into the columns, then into the rows; at-most budgets add the arcs from and to z.

    Labels start at 0 and never increase, so the 0 that stands for an absent arc changes no minimum.
    """
    q = np.minimum(q, (p[:, None] + graph.add_lengths).min(0))
    if graph.slack is not None:
        row_slack, col_slack = graph.slack
        q = np.minimum(q, z)
        z = np.minimum(z, np.where(col_slack, q, 0).min(0))
        p = np.where(row_slack, np.minimum(p, z), p)
    p = np.minimum(p, (q[None] + graph.remove_lengths).min(1))
    if graph.slack is not None:
        z = np.minimum(z, p.min(0))
    return p, q, z
