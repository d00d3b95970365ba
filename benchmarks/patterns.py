"""Measure the score that each pattern keeps of real layers, the storage of its masks, and the time to solve.

    python benchmarks/patterns.py [--rounds 3] [--write]

Solves the linear layers of all-MiniLM-L6-v2 by magnitude under each pattern, and one random 4096 x 4096 layer under
some patterns. Seconds are medians over rounds, after one untimed solve, of all layers together, on all cores. Storage
is the size in half precision, in the smallest of the formats of `masksmith.measures.storage`.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Mapping

import numpy as np
import torch
from layers import minilm
from measuring import ROOT, gaussian, interleave, stamp, table

import masksmith as ms
from masksmith.measures import count, storage

PATTERNS = (
    "50%", "2:4", "4:8", "8:16", "transposable 2:4", "transposable 8:16", "transposable <=2:4", "double 2:4",
    "channels out 50%", "channels in 50%", "block 32x32 50%", "block 16x16 50%", "block 16x16 50% balance rows",
    "block 16x16 50% balance cols", "block 16x16 50% balance both", "block 4x1 50%", "block 1x4 50%",
    "25%", "2:8", "transposable 2:8", "block 16x16 25%", "block 32x32 50% nested 2:4", "64:2:8",
    "10%", "block 16x16 10%", "64:2:16", "64:2:32", "hybrid 128x128 2:4 50%", "hybrid 128x128 2:4 75%",
)  # fmt: skip
LARGE = (
    "2:4",
    "10%",
    "block 16x16 50%",
    "block 16x16 50% balance both",
    "block 4x4 50% balance both",
    "64:2:8",
    "64:2:16",
    "64:2:32",
    "hybrid 128x128 2:4 75%",
)
"""Patterns of the large random layer."""


def bytes_of(solution: ms.Solution) -> Mapping[str, int]:
    """Return the bytes of a masked layer in each format."""
    pattern = solution.pattern
    block = (pattern.rows, pattern.cols) if isinstance(pattern, ms.Block) else (16, 16)
    return {name: size for name, size in storage(count(solution.mask, block)).items() if size is not None}


def row(pattern: str, scores: Mapping[str, np.ndarray], rounds: int) -> list[str]:
    """Solve and measure one pattern over all layers."""
    seconds, solutions = [], ms.solve_many(scores, pattern)
    for _ in range(rounds):
        started = time.perf_counter()
        solutions = ms.solve_many(scores, pattern)
        seconds.append(time.perf_counter() - started)
    assert all(ms.verify(solution.mask, pattern) for solution in solutions.values())
    sizes = [bytes_of(solution) for solution in solutions.values()]
    total = {name: sum(size[name] for size in sizes) for name in set.intersection(*(set(size) for size in sizes))}
    best = min(total, key=lambda name: total[name])
    entries, kept = sum(layer.size for layer in scores.values()), sum(solution.kept for solution in solutions.values())
    retained = sum(solution.unshifted_objective for solution in solutions.values())
    retained /= sum(solution.total_score for solution in solutions.values())
    bound = sum(solution.upper_bound for solution in solutions.values())
    gap = 1 - sum(solution.objective for solution in solutions.values()) / bound
    gap = 0.0 if all(solution.gap == 0.0 for solution in solutions.values()) else gap
    return [
        f"`{pattern}`",
        f"{kept / entries:.1%}",
        f"{retained:.2%}",
        f"{gap:.2g}",
        f"{total[best] / total['dense']:.0%} {best}",
        f"{np.median(seconds):.3f}",
    ]


def large(rounds: int) -> list[list[str]]:
    """Time one large layer under each of `LARGE`; returns the rows of a table."""
    scores = np.abs(gaussian(4096, 4096))
    runs = {pattern: (lambda pattern=pattern: ms.solve(scores, pattern)) for pattern in LARGE}
    seconds = interleave(runs, rounds)
    rows = []
    for pattern in LARGE:
        solution = ms.solve(scores, pattern)
        rows.append(
            [f"`{pattern}`", solution.status.value, f"{solution.gap:.2g}", f"{np.median(seconds[pattern]):.3f}"]
        )
    return rows


def compare_topk(rounds: int) -> str:
    """Compare plain 2:4, including the proof, with `torch.topk` on the same groups, one thread each."""
    scores = np.abs(gaussian(4096, 4096))
    groups, threads = torch.from_numpy(scores).view(-1, 4), torch.get_num_threads()

    def topk() -> None:
        kept = torch.topk(groups, 2, dim=1).indices
        torch.zeros_like(groups, dtype=torch.bool).scatter_(1, kept, True)

    torch.set_num_threads(1)
    runs = {"topk": topk, "solve": lambda: ms.solve(scores, "2:4", threads=1)}
    seconds = interleave(runs, rounds)
    torch.set_num_threads(threads)
    best = {name: min(times) for name, times in seconds.items()}
    return (
        f"Plain 2:4 of that layer, one thread, proof included: {best['solve']:.3f} s; `torch.topk` and a scatter on "
        f"the same groups, in the same run: {best['topk']:.3f} s, {best['topk'] / best['solve']:.1f} times as long."
    )


def main() -> None:
    """Measure and print; with `--write` also write the page of the documentation."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--write", action="store_true")
    arguments = options.parse_args()
    scores = {name: ms.magnitude(weight) for name, weight in minilm().items()}
    entries = sum(layer.size for layer in scores.values())
    real_table = table(
        ("pattern", "kept", "retained", "gap", "storage", "seconds"),
        [row(pattern, scores, arguments.rounds) for pattern in PATTERNS],
    )
    random_table = table(("pattern", "status", "gap", "seconds"), large(arguments.rounds))
    text = (
        f"# Patterns\n\n`python benchmarks/patterns.py --rounds {arguments.rounds}`. {stamp()}\n\n"
        f"The {len(scores)} linear layers of all-MiniLM-L6-v2, {entries / 1e6:.1f} million weights, magnitude. A gap "
        f"of 0 is proved.\nStorage is a share of the dense half-precision bytes, in the smallest format.\n\n"
        f"{real_table}\n\n"
        f"One random layer of 4096 x 4096, {arguments.rounds} interleaved rounds.\n\n{random_table}\n\n"
        f"{compare_topk(arguments.rounds)}\n\n"
        f"Load average of the machine at the end: {os.getloadavg()[0]:.1f}.\n"
    )
    print(text)
    if arguments.write:
        (ROOT / "docs" / "benchmarks" / "patterns.md").write_text(text)


if __name__ == "__main__":
    main()
