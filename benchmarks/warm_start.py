"""Measure the time that a warm start saves if scores change slowly, as in ADMM pruning and in training.

    python benchmarks/warm_start.py [--steps 100] [--size 512] [--write]

Each step every score drifts by `drift` of its size (a random walk); the layer is solved cold, and warm from the step
before (duals kept). Both proved optimal; one thread, taking turns; the gain is the median over steps of cold / warm.
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
    """Return the speed-up of a warm start and the share of the mask that changes per step."""
    rng, weight, pattern_text = np.random.default_rng(0), gaussian(size, size), f"transposable {pattern}"
    solution = ms.solve(np.abs(weight), pattern_text, threads=1, keep_duals=True)
    cold: list[float] = []
    warm: list[float] = []
    flips: list[float] = []
    for step in range(steps):
        weight = weight * (1 + drift * rng.standard_normal(weight.shape, dtype=np.float32))
        runs: list[tuple[list[float], dict[str, Any]]] = [
            (cold, {}),
            (warm, {"warm_start": solution, "keep_duals": True}),
        ]
        solutions, scores = {}, np.abs(weight)
        # The order alternates, since the first solve finds the scores out of the cache.
        for seconds, options in runs if step % 2 else reversed(runs):
            started = time.perf_counter()
            solutions[bool(options)] = ms.solve(scores, pattern_text, threads=1, **options)
            seconds.append(time.perf_counter() - started)
        fresh, following = solutions[False], solutions[True]
        assert following.gap == fresh.gap == 0.0
        flips.append(float((following.mask != solution.mask).mean()))
        solution = following
    return ratio(cold, warm), float(np.mean(flips))


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
