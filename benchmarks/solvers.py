"""Compare all solvers and other methods on the same tiles: time, ratio to Exact, and gap to the optimum.

    python benchmarks/solvers.py                    # everything, about half an hour on two cores
    python benchmarks/solvers.py --quick            # 8:16, gaussian and real weights
    python benchmarks/solvers.py --write            # and put tables and plot into docs/benchmarks/

One thread each, in interleaved rounds. `Exact` and the other solvers are timed by `ms.solve`, including checks and
certificate; other methods neither check nor certify. Gaps are relative to the proved optimum of each tile.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from layers import KINDS
from measuring import ROOT, interleave, ratio, stamp, table
from peers.masks import dykstra_torch, greedy_numba, ortools_flow, to_tiles

import masksmith as ms

PATTERNS = ("1:4", "2:4", "4:8", "8:16", "4:16", "16:32", "8:32")
QUICK = ("2:4", "8:16")
MEGA = 2**20
LAYER, MODEL = 2**22, 2**26
"""Entries of the layer on which Exact is timed, and of the weights on which threads are compared."""
SAMPLE = {"exact": LAYER, "min-cost-flow": 2**16, "greedy": 2**17, "sinkhorn": 2**16, "enumerate": 2**18}
"""Entries on which each solver is timed."""
PEER_SAMPLE = {"OR-Tools bulk": 2**16, "greedy (numba)": 2**19, "Dykstra-300 (torch)": 2**17}
"""Entries on which each other method is timed."""
PEERS = ("OR-Tools bulk", "Dykstra-300 (torch)", "greedy (numba)")
PLOTTED = (*SAMPLE, "OR-Tools bulk", "greedy (numba)")
SUMMARY_HEAD = ("pattern", "exact, ms per 2^20 weights", *(f"faster than {name} by" for name in PEERS), "greedy loses")
HEAD = ("solver", "ms per 2^20", "Exact is faster by", "mean gap", "worst tile", "tiles optimal")
Mask = np.ndarray


@dataclass(frozen=True)
class Line:
    """Measurements of one solver on one pattern and kind of data.

    Attributes:
        solver: Name of the solver or other method.
        ms_per_mega: Milliseconds per 2^20 weights.
        faster: How many times faster Exact is.
        mean_gap: Gap of all tiles together, relative to the optimum; None if masks were not compared.
        worst_gap: Largest gap of a tile.
        optimal: Share of the tiles whose mask is optimal.
    """

    solver: str
    ms_per_mega: float
    faster: float
    mean_gap: float | None
    worst_gap: float | None
    optimal: float | None

    def cells(self) -> list[str]:
        """Render for a table."""
        gaps = ["-", "-", "-"]
        if self.mean_gap is not None and self.worst_gap is not None and self.optimal is not None:
            mean = f"{self.mean_gap:.3%}" if self.mean_gap else "0"
            worst = f"{self.worst_gap:.2%}" if self.worst_gap else "0"
            gaps = [mean, worst, f"{self.optimal:.1%}"]
        return [self.solver, f"{self.ms_per_mega:.1f}", "1" if self.solver == "exact" else f"{self.faster:.1f}x", *gaps]


def compare(pattern: str, kind: str, rounds: int) -> list[Line]:
    """Measure all solvers and methods that support a pattern, on one kind of data."""
    n, m = (int(part) for part in pattern.split(":"))
    scores = {size: np.abs(KINDS[kind](size)) for size in {*SAMPLE.values(), *PEER_SAMPLE.values()}}
    transposable_pattern = f"transposable {pattern}"
    lines = []
    for name, size in SAMPLE.items():
        if name == "enumerate" and m != 4:
            continue
        lines.append(
            _against_exact(
                name,
                scores[size],
                scores[LAYER],
                transposable_pattern,
                m,
                rounds,
                _solver_run(name, scores[size], transposable_pattern),
                gaps=True,
            )
        )
    for name, size in PEER_SAMPLE.items():
        tiles = to_tiles(scores[size], m)
        runs: dict[str, Callable[[], Mask]] = {
            "OR-Tools bulk": lambda tiles=tiles: ortools_flow(tiles, n),
            "greedy (numba)": lambda tiles=tiles: greedy_numba(tiles, n),
            "Dykstra-300 (torch)": lambda tiles=tiles: dykstra_torch(tiles, n),
        }
        gaps = not name.startswith("Dykstra")
        lines.append(
            _against_exact(name, scores[size], scores[LAYER], transposable_pattern, m, rounds, runs[name], gaps=gaps)
        )
    return lines


def _solver_run(name: str, scores: np.ndarray, transposable_pattern: str) -> Callable[[], Mask]:
    """Return a function that solves by `ms.solve`, and returns the mask as tiles."""
    m = int(transposable_pattern.rsplit(":", 1)[1])
    return lambda: to_tiles(ms.solve(scores, transposable_pattern, name, threads=1).mask, m)


def _against_exact(
    name: str,
    scores: np.ndarray,
    layer: np.ndarray,
    transposable_pattern: str,
    m: int,
    rounds: int,
    run: Callable[[], Mask],
    *,
    gaps: bool,
) -> Line:
    """Time a run, and Exact on a layer of the same kind of data; with `gaps`, compare the masks tile by tile.

    Args:
        name: Name of the solver or method.
        scores: Scores that `run` solves.
        layer: Scores on which Exact is timed.
        transposable_pattern: The pattern.
        m: Rows and columns of a tile.
        rounds: Number of timings.
        run: Solves `scores`; returns the mask as tiles.
        gaps: Whether the masks obey the pattern, so that they can be compared.
    """
    exact = ms.solve(scores, transposable_pattern, "exact", threads=1)
    assert exact.status == "optimal", exact
    runs = {"exact": lambda: ms.solve(layer, transposable_pattern, "exact", threads=1)}
    seconds = interleave(runs if name == "exact" else {**runs, name: run}, rounds)
    per_mega = statistics.median(seconds[name]) * MEGA / scores.size * 1e3
    faster = ratio(seconds[name], seconds["exact"]) * layer.size / scores.size
    if not gaps:
        return Line(name, per_mega, faster, None, None, None)
    tiles, best = to_tiles(scores, m), exact.tile_objectives.reshape(-1)
    kept = (run() * tiles).sum(axis=(1, 2), dtype=np.float64)
    gaps_by_tile = np.divide(np.maximum(0.0, best - kept), best, out=np.zeros_like(best), where=best > 0)
    gaps_by_tile[gaps_by_tile < 1e-12] = 0.0
    total = float(gaps_by_tile @ best / best.sum())
    return Line(name, per_mega, faster, total, float(gaps_by_tile.max()), float((gaps_by_tile == 0).mean()))


def threads(pattern: str, rounds: int) -> float:
    """Median speed-up of two threads over one, interleaved.

    The scores are as many as those of a whole model, because a virtual machine may run a burst of a few milliseconds on
    one core only.
    """
    scores, transposable_pattern = np.abs(KINDS["gaussian"](MODEL)), f"transposable {pattern}"
    runs = {str(k): (lambda k=k: ms.solve(scores, transposable_pattern, threads=k)) for k in (1, 2)}
    seconds = interleave(runs, rounds)
    return ratio(seconds["1"], seconds["2"])


def plot(results: dict[tuple[str, str], list[Line]], path: Path) -> None:
    """Draw time against gap, both logarithmic, one panel a pattern."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    patterns = [pattern for pattern, kind in results if kind == "gaussian"]
    figure, axes = plt.subplots(1, len(patterns), figsize=(3.2 * len(patterns), 4), sharey=True, layout="constrained")
    for axis, pattern in zip(np.atleast_1d(axes), patterns, strict=True):
        for line in results[pattern, "gaussian"]:
            if line.mean_gap is not None:
                place = line.ms_per_mega, max(line.mean_gap, 1e-6)
                axis.scatter(*place, label=line.solver, s=50, color=f"C{PLOTTED.index(line.solver)}")
        axis.set(xscale="log", yscale="log", title=f"transposable {pattern}", xlabel="ms per 2^20 weights")
        axis.grid(alpha=0.3)
    first = np.atleast_1d(axes)[0]
    first.set_ylabel("score lost against the optimum (1e-6: none)")
    first.legend(fontsize=7)
    figure.savefig(path, dpi=110)


def summary(results: dict[tuple[str, str], list[Line]], kind: str) -> str:
    """Return the README's table: Exact and other methods, a row per pattern."""
    rows = []
    for pattern, measured_kind in results:
        if measured_kind != kind:
            continue
        lines = {line.solver: line for line in results[pattern, kind]}
        peers = [f"{lines[name].faster:.0f}x" for name in PEERS]
        greedy = lines["greedy (numba)"].mean_gap
        rows.append([f"transposable {pattern}", f"{lines['exact'].ms_per_mega:.1f}", *peers, f"{greedy:.2%}"])
    return table(SUMMARY_HEAD, rows)


def write_between(path: Path, mark: str, text: str) -> None:
    """Replace the text between `<!-- mark -->` and `<!-- /mark -->`."""
    before, rest = path.read_text().split(f"<!-- {mark} -->", 1)
    _, after = rest.split(f"<!-- /{mark} -->", 1)
    path.write_text(f"{before}<!-- {mark} -->\n{text}\n<!-- /{mark} -->{after}")


def main() -> None:
    """Measure and print; with `--write` also write the page of the documentation."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--quick", action="store_true")
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--write", action="store_true")
    arguments = options.parse_args()
    torch.set_num_threads(1)
    kinds = ("gaussian", "MiniLM") if arguments.quick else tuple(KINDS)
    results: dict[tuple[str, str], list[Line]] = {}
    text = [f"# Solvers\n\n{stamp()}\n\n{(__doc__ or '').split(chr(10), 1)[0]}\n"]
    for pattern in QUICK if arguments.quick else PATTERNS:
        speedup = threads(pattern, arguments.rounds)
        text.append(f"\n## transposable {pattern}\n\nTwo threads are {speedup:.2f}x as fast as one.\n")
        print(text[-1])
        for kind in kinds:
            results[pattern, kind] = compare(pattern, kind, arguments.rounds)
            text.append(f"\n### {kind}\n\n{table(HEAD, [line.cells() for line in results[pattern, kind]])}\n")
            print(text[-1])
    if arguments.write:
        folder = ROOT / "docs" / "benchmarks"
        folder.mkdir(parents=True, exist_ok=True)
        plot(results, folder / "solvers.png")
        (folder / "solvers.md").write_text("".join([*text, "\n![Time against gap](solvers.png)\n"]))
        caption = f"Real weights (MiniLM layers), one thread, every mask proved optimal (gap 0.0). {stamp()}"
        write_between(ROOT / "README.md", "solvers-table", f"{caption}\n\n{summary(results, 'MiniLM')}")


if __name__ == "__main__":
    main()
