"""Blocks with budgets on block rows and block columns: one min-cost flow over the whole grid of blocks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from ortools.graph.python.min_cost_flow import SimpleMinCostFlow

from masksmith._errors import SolverError
from masksmith._panels import Bools, Doubles
from masksmith.patterns import TileSpec
from masksmith.solvers._duals.exact_duals import ScaledTiles, exact_duals
from masksmith.solvers._duals.integers import Integers

from .units import KeptUnits
from .violations import unit_violations

MAX_BLOCKS = 1 << 22
"""Maximum number of blocks, each of which is an arc of the flow; larger flows take minutes and gigabytes."""

_OPTIMAL, _OVERFLOW = int(SimpleMinCostFlow.OPTIMAL), int(SimpleMinCostFlow.BAD_COST_RANGE)


def best_of_rows_and_cols(values: Doubles, row_budgets: Sequence[int], col_budgets: Sequence[int]) -> KeptUnits:
    """Keep the best blocks under budgets of block rows and block columns, and prove it by duals.

    Every block row is a source that supplies its budget, every block column a sink that demands its budget, and every
    block an arc of capacity 1 and cost `-value`. OR-Tools needs integer costs: values are multiplied by a power of two,
    and rounded only if no power makes all of them integers in range, or if OR-Tools refuses costs so large. OR-Tools
    returns no duals; they are computed from the residual graph (`solvers._duals.residual`), as for tiles.

    Args:
        values: `[block rows, block columns]`, the values of the blocks in float64; the mask is the best one for these.
        row_budgets: The budget of each block row.
        col_budgets: The budget of each block column.

    Raises:
        SolverError: If the grid is too large for one flow, or OR-Tools fails.
    """
    if values.size > MAX_BLOCKS:
        raise SolverError(
            f"balance both is one flow over all blocks, and {values.size} blocks are more than {MAX_BLOCKS}; use "
            f"larger blocks or balance rows"
        )
    # The grid of blocks as one tile. The tile's budgets, 1 and 1, are not used: for exact budgets, the residual graph
    # is made from the mask and the values alone.
    tile = TileSpec(values.shape[0], values.shape[1], 1, 1)
    scaled = ScaledTiles.of(values[None], tile)
    status, mask = _flow(scaled.integers[0], row_budgets, col_budgets)
    while status == _OVERFLOW and scaled.integers.any():
        scaled.halve(0)
        status, mask = _flow(scaled.integers[0], row_budgets, col_budgets)
    if status != _OPTIMAL:
        raise SolverError(f"OR-Tools' min-cost flow ended with {SimpleMinCostFlow.Status(status)}")
    u, v = exact_duals(scaled, mask[None], tile, None)
    violation = unit_violations(values, mask, u.T, v).sum(keepdims=True)
    return KeptUnits(mask, violation, "min-cost-flow")


def _flow(values: Integers, row_budgets: Sequence[int], col_budgets: Sequence[int]) -> tuple[int, Bools]:
    """Solve the flow; return OR-Tools' status and the mask of kept blocks, all False unless optimal."""
    down, across = values.shape
    tails = np.repeat(np.arange(down, dtype=np.int32), across)
    heads = np.tile(np.arange(down, down + across, dtype=np.int32), down)
    flow = SimpleMinCostFlow()
    arcs = flow.add_arcs_with_capacity_and_unit_cost(tails, heads, np.ones(values.size, np.int64), -values.reshape(-1))
    nodes = np.arange(down + across, dtype=np.int32)
    flow.set_nodes_supplies(nodes, np.concatenate([row_budgets, np.negative(col_budgets)]).astype(np.int64))
    status = int(flow.solve())
    mask = flow.flows(arcs).astype(np.bool_) if status == _OPTIMAL else np.zeros(values.size, np.bool_)
    return status, mask.reshape(values.shape)
