"""Measure the time that a warm start saves if scores change slowly, as in ADMM pruning and in training.

    python benchmarks/warm_start.py [--steps 100] [--size 512] [--write]

In each step every weight changes at random by about the share `drift` of its size (a random walk). The layer is solved
without a warm start (cold), and with the solution of the step before, duals included, as a warm start. Both solutions
are proved optimal. One thread; the order alternates; the gain is the median over steps of cold / warm time.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np
from measuring import ROOT, gaussian, ratio, stamp, table

import masksmith as ms

PATTERNS = ("2:4", "4:8", "8:16", "16:32", "32:64")


def walk(pattern: str, size: int, steps: int, drift: float) -> tuple[float, float]:
    """Return the speed-up of a warm start, and the share of the mask's entries that change per step."""
    rng, weight, pattern_text = np.random.default_rng(0), gaussian(size, size), f"transposable {pattern}"
    solution = ms.solve(np.abs(weight), pattern_text, threads=1, keep_duals=True)
    seconds: dict[str, list[float]] = {"cold": [], "warm": []}
    flips: list[float] = []
    for step in range(steps):
        weight = weight * (1 + drift * rng.standard_normal(weight.shape, dtype=np.float32))
        options: dict[str, dict[str, Any]] = {"cold": {}, "warm": {"warm_start": solution, "keep_duals": True}}
        solutions, scores = {}, np.abs(weight)
        # The order alternates, because the scores are not in the processor's cache for the first of the two solves.
        for name in ("cold", "warm") if step % 2 else ("warm", "cold"):
            started = time.perf_counter()
            solutions[name] = ms.solve(scores, pattern_text, threads=1, **options[name])
            seconds[name].append(time.perf_counter() - started)
        assert solutions["warm"].gap == solutions["cold"].gap == 0.0
        flips.append(float((solutions["warm"].mask != solution.mask).mean()))
        solution = solutions["warm"]
    return ratio(seconds["cold"], seconds["warm"]), float(np.mean(flips))


def main() -> None:
    """Measure and print; with `--write` also write the page of the documentation."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--steps", type=int, default=100)
    options.add_argument("--size", type=int, default=512)
    options.add_argument("--write", action="store_true")
    arguments = options.parse_args()
    rows = []
    for pattern in PATTERNS:
        for drift in (0.01, 0.001):
            gain, flips = walk(pattern, arguments.size, arguments.steps, drift)
            rows.append([pattern, f"{drift:.1%}", f"{flips:.2%}", f"{gain:.2f}x"])
            print(rows[-1])
    head = ("transposable", "drift a step", "mask changed a step", "warm is faster by")
    setting = f"{arguments.steps} steps, {arguments.size}^2 weights."
    text = f"# Warm starts\n\n{stamp()}\n\n{setting}\n\n{table(head, rows)}\n"
    print(text)
    if arguments.write:
        (ROOT / "docs" / "benchmarks" / "warm_start.md").write_text(text)


if __name__ == "__main__":
    main()
