"""Measure the exact solver on scores that are hard to solve, relative to Gaussian scores.

    python benchmarks/generators.py                 # all generators of the tests, a few minutes
    python benchmarks/generators.py --quick         # fewer weights and rounds
    python benchmarks/generators.py --write         # and put the tables into docs/benchmarks/generators.md

The solver runs on one thread, without the certificate, on a generator's scores and on Gaussian scores in interleaved
rounds.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable
from functools import partial

import numpy as np
from measuring import ROOT, interleave, ratio, stamp, table

from masksmith._panels import Panel
from masksmith.patterns import TileSpec
from masksmith.solvers.exact import Exact

sys.path.insert(0, str(ROOT / "tests"))
from support.strategies import SCORES, column_scales

Draw = Callable[[np.random.Generator, tuple[int, int], TileSpec], np.ndarray]
GENERATORS: dict[str, Draw] = {**SCORES, "column scales": column_scales}
RATIOS = ("2:4", "4:8", "8:16", "16:32")
MEGA = 2**20
solve = Exact()


def panel_of(name: str, tile: TileSpec, side: int) -> Panel:
    """Draw a square matrix of scores from a generator, as a panel."""
    scores = GENERATORS[name](np.random.default_rng(5), (side, side), tile)
    return Panel(np.ascontiguousarray(scores, np.float32), tile)


def measure(name: str, tile: TileSpec, side: int, rounds: int) -> tuple[float, float]:
    """Return the milliseconds per 2^20 weights, and the ratio to the time on Gaussian scores."""
    panels = {"gaussian": panel_of("gaussian", tile, side), name: panel_of(name, tile, side)}
    seconds = interleave({generator: partial(solve, panel) for generator, panel in panels.items()}, rounds)
    return statistics.median(seconds[name]) * MEGA / side**2 * 1e3, ratio(seconds[name], seconds["gaussian"])


def by_generator(at_most: bool, side: int, rounds: int) -> str:
    """Return a table with a row per generator and a column per pattern, and the maxima in the last row."""
    rows, worst = [], dict.fromkeys(RATIOS, 0.0)
    for name in GENERATORS:
        cells = [name]
        for pattern in RATIOS:
            n, m = map(int, pattern.split(":"))
            per_mega, slower = measure(name, TileSpec(m, m, n, n, at_most), side, rounds)
            cells.append(f"{per_mega:.1f} ({slower:.1f}x)")
            worst[pattern] = max(worst[pattern], slower)
        rows.append(cells)
        print(*cells, sep="\t", flush=True)
    rows.append(["worst", *(f"{worst[pattern]:.1f}x" for pattern in RATIOS)])
    return table(("scores", *RATIOS), rows)


def main() -> None:
    """Measure and print; with `--write` also write the page of the documentation."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--quick", action="store_true")
    options.add_argument("--rounds", type=int, default=9)
    options.add_argument("--write", action="store_true")
    arguments = options.parse_args()
    side, rounds = (512, 3) if arguments.quick else (1024, arguments.rounds)
    text = (
        f"# Generators\n\n{stamp()}\n\nMilliseconds per 2^20 weights on one thread, in brackets how many times slower "
        f"than on gaussian scores. Columns scaled by 1e-30..1e30 are beyond what float64 duals can always prove.\n\n"
        f"## Exact fill\n\n{by_generator(False, side, rounds)}\n\n"
        f"## At most n\n\n{by_generator(True, side, rounds)}\n"
    )
    print(text)
    if arguments.write:
        (ROOT / "docs" / "benchmarks" / "generators.md").write_text(text)


if __name__ == "__main__":
    main()
