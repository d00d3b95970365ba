"""Other methods for transposable masks, each in the fastest form known to us, without certificates.

They take tiles `[T, m, m]` of scores and return masks of the same shape.
"""

from __future__ import annotations

import numba
import numpy as np
import torch
from ortools.graph.python.min_cost_flow import SimpleMinCostFlow


def ortools_flow(tiles: np.ndarray, n: int) -> np.ndarray:
    """OR-Tools: one `SimpleMinCostFlow` per tile, arcs added in bulk, costs rounded to 2^-24 of the largest."""
    count, m, _ = tiles.shape
    tails, heads = np.repeat(np.arange(m), m), m + np.tile(np.arange(m), m)
    ones, nodes = np.ones(m * m, np.int64), np.arange(2 * m)
    supplies = np.concatenate([np.full(m, n), np.full(m, -n)])
    masks = np.empty(tiles.shape, bool)
    for t in range(count):
        top = float(tiles[t].max()) or 1.0
        costs = -np.rint(tiles[t].reshape(-1) * (2.0**24 / top)).astype(np.int64)
        flow = SimpleMinCostFlow()
        arcs = flow.add_arcs_with_capacity_and_unit_cost(tails, heads, ones, costs)
        flow.set_nodes_supplies(nodes, supplies)
        assert flow.solve() == flow.OPTIMAL
        masks[t] = flow.flows(arcs).reshape(m, m) > 0
    return masks


@numba.njit(cache=True)
def greedy_numba(tiles: np.ndarray, n: int) -> np.ndarray:  # type: ignore[no-untyped-def]
    """Greedy: entries in descending order, kept if row and column are not full; sorts packed integers."""
    count, m, _ = tiles.shape
    masks = np.zeros(tiles.shape, np.bool_)
    keys = np.empty(m * m, np.uint64)
    rows, cols = np.empty(m, np.int64), np.empty(m, np.int64)
    for t in range(count):
        bits = tiles[t].reshape(-1).view(np.uint32)
        for k in range(m * m):
            keys[k] = (np.uint64(bits[k]) << np.uint64(32)) | np.uint64(k)
        keys.sort()
        rows[:], cols[:] = 0, 0
        for k in range(m * m - 1, -1, -1):
            place = np.int64(keys[k] & np.uint64(0xFFFFFFFF))
            i, j = place // m, place % m
            if rows[i] < n and cols[j] < n:
                rows[i] += 1
                cols[j] += 1
                masks[t, i, j] = True
    return masks


def dykstra_torch(tiles: np.ndarray, n: int, iterations: int = 300, temperature: float = 80.0) -> np.ndarray:
    """Entropic transport: 300 Dykstra projections in float32, batched torch; without the rounding to a mask."""
    return projections(torch.from_numpy(tiles), n, iterations, temperature).numpy()


def projections(scores: torch.Tensor, n: int, iterations: int = 300, temperature: float = 80.0) -> torch.Tensor:
    """Project a plan for tiles `[T, m, m]` onto their budgets alternately, on their device."""
    top = scores.amax(dim=(1, 2), keepdim=True).clamp_min(1e-30)
    plan = torch.exp((scores / top - 1.0) * temperature)
    correction = torch.ones_like(plan)
    for _ in range(iterations):
        plan = plan * (n / plan.sum(dim=2, keepdim=True))
        plan = plan * (n / plan.sum(dim=1, keepdim=True))
        lifted = plan * correction
        capped = lifted.clamp_max(1.0)
        correction = correction * (plan / capped)
        plan = capped
    return plan


def to_tiles(scores: np.ndarray, m: int) -> np.ndarray:
    """Split a matrix into its whole m x m tiles."""
    rows, cols = scores.shape[0] // m * m, scores.shape[1] // m * m
    cut = scores[:rows, :cols].reshape(rows // m, m, cols // m, m).transpose(0, 2, 1, 3)
    return np.ascontiguousarray(cut).reshape(-1, m, m)
