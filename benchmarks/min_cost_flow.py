"""Compare the time of `MinCostFlow` with that of OR-Tools alone, on the same tiles, in interleaved rounds.

    python benchmarks/min_cost_flow.py [--size 256] [--rounds 7]

OR-Tools alone: one solver per tile, arcs added in bulk from prepared arrays, `solve`, `flows`. One process. One
call of each before the rounds is not timed.
"""

from __future__ import annotations

import argparse
import os
import platform
import time
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from measuring import commit
from ortools.graph.python.min_cost_flow import SimpleMinCostFlow

from masksmith._panels import Panel, to_tiles
from masksmith.patterns import TileSpec, parse
from masksmith.solvers.min_cost_flow import MinCostFlow

PATTERNS = ("2:4", "4:8", "8:16", "4:16", "16:32", "8:32", "32:64")


def ortools_alone(scores: npt.NDArray[np.float32], tile: TileSpec) -> Callable[[], int]:
    """Prepare the arcs of all tiles; returns a function that solves all tiles, and returns the number of flows read."""
    # OR-Tools needs integer costs: scores are scaled to at most 2^24 and rounded.
    costs = -np.rint(to_tiles(scores, tile).astype(np.float64) / scores.max() * 2**24).astype(np.int64)
    costs = costs.reshape(len(costs), -1)
    tails = np.repeat(np.arange(tile.rows, dtype=np.int32), tile.cols)
    heads = np.tile(np.arange(tile.cols, dtype=np.int32), tile.rows) + np.int32(tile.rows)
    ones, arcs = np.ones(len(tails), np.int64), np.arange(len(tails), dtype=np.int32)
    nodes = np.arange(tile.rows + tile.cols, dtype=np.int32)
    supplies = np.repeat(np.array([tile.row_keep, -tile.col_keep]), [tile.rows, tile.cols])

    def run() -> int:
        flow_count = 0
        for index in range(len(costs)):
            flow = SimpleMinCostFlow()
            flow.add_arcs_with_capacity_and_unit_cost(tails, heads, ones, costs[index])
            flow.set_nodes_supplies(nodes, supplies)
            if flow.solve() != flow.OPTIMAL:
                raise RuntimeError(f"OR-Tools does not solve tile {index}")
            flow_count += len(flow.flows(arcs))
        return flow_count

    return run


def seconds_of(run: Callable[[], object]) -> float:
    """Time one call."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def table_row(pattern: str, size: int, rounds: int) -> str:
    """Time both on one random layer; returns a row of the table."""
    tile = parse(f"transposable {pattern}").tile
    scores = np.abs(np.random.default_rng(0).standard_normal((size, size), dtype=np.float32))
    ortools = ortools_alone(scores, tile)

    def ours() -> object:
        return MinCostFlow()(Panel(scores, tile))

    ours()
    ortools()
    pairs = [(seconds_of(ours), seconds_of(ortools)) for _ in range(rounds)]
    best_ours, best_ortools = (1e9 * min(times) / scores.size for times in zip(*pairs, strict=True))
    ratio = float(np.median([ours_s / ortools_s for ours_s, ortools_s in pairs]))
    return f"| {pattern} | {best_ours:.0f} | {best_ortools:.0f} | {ratio:.2f} |"


def main() -> None:
    """Measure and print the table."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--size", type=int, default=256)
    options.add_argument("--rounds", type=int, default=7)
    arguments = options.parse_args()
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, commit {commit()}\n")
    print("| pattern | MinCostFlow, ns a weight | OR-Tools alone, ns a weight | median ratio |\n|---|---|---|---|")
    for pattern in PATTERNS:
        print(table_row(pattern, arguments.size, arguments.rounds), flush=True)


if __name__ == "__main__":
    main()
