"""Exact solver by OR-Tools' min-cost flow, one graph per tile; an independent search with which tests check `Exact`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from ortools.graph.python.min_cost_flow import SimpleMinCostFlow

from masksmith._errors import InfeasibleError, SolverError
from masksmith._panels import KEEP, Bools, Forced, Panel, PanelAnswer
from masksmith.patterns import TileSpec

from ._duals.exact_duals import ScaledTiles, exact_duals
from ._duals.integers import Integers
from .base import Parallelism, RefusesByTile

_OPTIMAL, _INFEASIBLE, _COSTS_TOO_LARGE = (
    int(status)
    for status in (SimpleMinCostFlow.OPTIMAL, SimpleMinCostFlow.INFEASIBLE, SimpleMinCostFlow.BAD_COST_RANGE)
)


@dataclass(frozen=True)
class MinCostFlow(RefusesByTile):
    """Cost-scaling push-relabel on a graph `rows -> columns` with one arc of capacity 1 and cost `-w` per entry.

    Exact fill: rows supply their budget and columns demand theirs. At-most fill: one more node, the slack node, passes
    unused supply from rows to columns at cost 0, so that a flow exists unless forced entries prevent it. OR-Tools
    returns no duals; they are computed from the residual graph of the flow (`_duals.residual`).

    OR-Tools holds the interpreter lock while it solves, so panels run on processes. Every tile has its own graph, since
    the choice among equal optima in a shared graph would depend on other tiles.

    Goldberg (1997), An efficient implementation of a scaling minimum-cost flow algorithm, J. Algorithms 22.
    """

    name: ClassVar[str] = "min-cost-flow"
    version: ClassVar[int] = 1
    parallelism: ClassVar[Parallelism] = "processes"

    def __call__(self, panel: Panel) -> PanelAnswer:
        """Solve every tile of a panel.

        Raises:
            InfeasibleError: If forced entries leave a tile without an allowed mask.
            SolverError: If OR-Tools fails for another reason.
        """
        tile, (tiles, forced) = panel.tile, panel.tiles()
        scaled, mask, network = ScaledTiles.of(tiles, tile), np.empty(tiles.shape, np.bool_), _Network(tile)
        costs, flat_masks = network.costs(scaled.integers), mask.reshape(len(tiles), -1)
        for index in range(len(tiles)):
            tile_forced = None if forced is None else forced[index]
            status = network.solve(costs[index], flat_masks[index], tile_forced)
            while status == _COSTS_TOO_LARGE:
                scaled.halve(index)
                costs[index] = network.costs(scaled.integers[index : index + 1])
                status = network.solve(costs[index], flat_masks[index], tile_forced)
            if status != _OPTIMAL:
                raise _error(status, divmod(index, panel.across))
        u, v = exact_duals(scaled, mask, tile, None if forced is None else forced == 0)
        return PanelAnswer.of_tiles(panel, mask, u, v)


class _Network:
    """The graph of every tile, without costs: nodes, supplies, and arcs with capacities.

    First come the arcs of the entries in row-major order, then (at-most fill) the arcs to and from the slack node.
    """

    def __init__(self, tile: TileSpec) -> None:
        rows, cols = np.arange(tile.rows, dtype=np.int32), np.arange(tile.cols, dtype=np.int32) + tile.rows
        # The slack node, once for each of its arcs; empty for exact fill. So `rows[: len(slack)]` is all rows for
        # at-most fill, and empty for exact fill.
        slack = np.full(tile.rows + tile.cols if tile.at_most else 0, tile.rows + tile.cols, np.int32)
        self.entry_count = tile.rows * tile.cols
        self.at_most = tile.at_most
        self.tails = np.concatenate([np.repeat(rows, tile.cols), rows[: len(slack)], slack[tile.rows :]])
        self.heads = np.concatenate([np.tile(cols, tile.rows), slack[: tile.rows], cols[: len(slack)]])
        self.capacities = np.ones(len(self.tails), np.int64)
        self.capacities[self.entry_count :] = max(tile.row_keep, tile.col_keep)
        self.entry_arcs = np.arange(self.entry_count, dtype=np.int32)
        self.nodes = np.arange(tile.rows + tile.cols + tile.at_most, dtype=np.int32)
        self.supplies = np.repeat(np.array([tile.row_keep, -tile.col_keep, 0]), [tile.rows, tile.cols, tile.at_most])
        if tile.at_most:
            self.supplies[-1] = -self.supplies.sum()

    def costs(self, integers: Integers) -> Integers:
        """Return the costs of all arcs, `[T, arcs]`, for integer scores `[T, R, C]`."""
        costs = np.zeros((len(integers), len(self.tails)), np.int64)
        np.negative(integers.reshape(len(integers), -1), out=costs[:, : self.entry_count])
        return costs

    def solve(self, costs: Integers, mask: Bools, forced: Forced | None) -> int:
        """Solve one tile; return the status, and write the best mask `[R * C]` if the status is `_OPTIMAL`."""
        if forced is not None:
            return self._solve_forced(costs, mask, forced)
        status, flow = self._run(self.tails, self.heads, self.capacities, costs, self.supplies)
        if status == _OPTIMAL:
            mask[:] = flow.flows(self.entry_arcs)
        return status

    def _solve_forced(self, costs: Integers, mask: Bools, forced: Forced) -> int:
        """As `solve`, with forced keeps subtracted from supplies and demands, and without arcs of forced entries."""
        kept = forced == KEEP
        supplies = self.supplies.copy()
        supplies[: forced.shape[0]] -= kept.sum(1)
        supplies[forced.shape[0] : sum(forced.shape)] += kept.sum(0)
        if supplies[: forced.shape[0]].min() < 0 or supplies[forced.shape[0] : sum(forced.shape)].max() > 0:
            return _INFEASIBLE
        if self.at_most:
            supplies[-1] = -supplies[:-1].sum()
        free_entries = np.flatnonzero(forced.reshape(-1) == 0).astype(np.int32)
        arcs = np.concatenate([free_entries, np.arange(self.entry_count, len(self.tails), dtype=np.int32)])
        free_arcs = (self.tails[arcs], self.heads[arcs], self.capacities[arcs], costs[arcs])
        status, flow = self._run(*free_arcs, supplies)
        if status == _OPTIMAL:
            mask[:] = kept.reshape(-1)
            mask[free_entries] = flow.flows(self.entry_arcs[: len(free_entries)])
        return status

    def _run(self, tails: Any, heads: Any, capacities: Any, costs: Any, supplies: Any) -> tuple[int, Any]:
        flow = SimpleMinCostFlow()
        flow.add_arcs_with_capacity_and_unit_cost(tails, heads, capacities, costs)
        flow.set_nodes_supplies(self.nodes, supplies)
        return int(flow.solve()), flow


def _error(status: int, position: tuple[int, int]) -> Exception:
    """Return the error for a status other than `_OPTIMAL` of the tile at a position in the panel."""
    if status == _INFEASIBLE:
        return InfeasibleError("forced entries leave no allowed mask", position)
    return SolverError(f"tile {position}: OR-Tools' min-cost flow ended with {SimpleMinCostFlow.Status(status)}")
