"""Measure time and memory as functions of the number of weights, from 256^2 to 16384^2, and of m.

    python benchmarks/scaling.py [--largest 16384] [--write]

Each size runs in a new process. The memory of a solve is the peak memory after it minus the peak memory before it, when
the scores are already in memory. The mask has a quarter of the bytes of the float32 scores.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

from measuring import ROOT, stamp, table
from tqdm import tqdm

SIZES = (256, 512, 1024, 2048, 4096, 8192, 16384)
RATIOS = ("1:2", "2:4", "4:8", "8:16", "16:32", "32:64", "3:7", "12:24")
CHILD = """
import json, resource, sys, time
import numpy as np, masksmith as ms
size, pattern, threads = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
rng = np.random.default_rng(0)
scores = np.empty((size, size), np.float32)
for row in scores: row[:] = np.abs(rng.standard_normal(size, dtype=np.float32))
ms.solve(scores[:128, :128], pattern, threads=threads)
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
before, seconds = peak(), []
for _ in range(3):
    solution = None  # two masks at once would count as what one solve needs
    started = time.perf_counter()
    solution = ms.solve(scores, pattern, threads=threads)
    seconds.append(time.perf_counter() - started)
assert solution.gap == 0.0
print(json.dumps({"seconds": min(seconds), "extra": peak() - before, "input": scores.nbytes}))
"""


def measure(size: int, pattern: str, threads: int) -> dict[str, float]:
    """Solve one square layer in a new process; returns seconds, bytes of extra memory, and bytes of the scores."""
    command = [sys.executable, "-c", CHILD, str(size), pattern, str(threads)]
    process = subprocess.run(command, capture_output=True, text=True, check=True)
    figures: dict[str, float] = json.loads(process.stdout)
    return figures


def by_size(figures_by_size: dict[int, dict[str, float]]) -> str:
    """Return the table by size, of transposable 8:16 on two threads."""
    rows = []
    for size, figures in figures_by_size.items():
        extra = (figures["extra"] - figures["input"] / 4) / figures["input"]
        rows.append(
            [
                f"{size}^2",
                f"{figures['seconds'] * 1e3:.1f}",
                f"{figures['seconds'] / size**2 * 2**20 * 1e3:.2f}",
                f"{max(0.0, figures['extra']) / 2**20:.0f}",
                f"{max(0.0, extra):.2f}",
            ]
        )
    return table(("weights", "ms", "ms per 2^20", "extra MiB, mask included", "extra beyond the mask / input"), rows)


def by_ratio(size: int) -> str:
    """Return the table by n:m, of one size on one thread."""
    rows = []
    for ratio in RATIOS:
        figures = measure(size, f"transposable {ratio}", 1)
        rows.append([ratio, f"{figures['seconds'] / size**2 * 2**20 * 1e3:.2f}"])
    return table(("transposable", "ms per 2^20"), rows)


def plot(figures_by_size: dict[int, dict[str, float]], path: Path) -> None:
    """Draw time and memory against the number of weights, all logarithmic."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    weights = [size**2 for size in figures_by_size]
    left.plot(weights, [figures["seconds"] for figures in figures_by_size.values()], "o-")
    left.set(xscale="log", yscale="log", xlabel="weights", ylabel="seconds, two threads", title="transposable 8:16")
    right.plot(weights, [figures["input"] / 2**20 for figures in figures_by_size.values()], "o--", label="scores")
    right.plot(weights, [figures["input"] / 2**22 for figures in figures_by_size.values()], "o--", label="mask")
    extra = [figures["extra"] / 2**20 for figures in figures_by_size.values()]
    right.plot(weights, extra, "o-", label="the solve, mask included")
    right.set(xscale="log", yscale="log", xlabel="weights", ylabel="MiB")
    right.legend()
    for axis in (left, right):
        axis.grid(alpha=0.3)
    figure.savefig(path, dpi=110)


def main() -> None:
    """Measure and print; with `--write` also write the page of the documentation."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--largest", type=int, default=16384)
    options.add_argument("--write", action="store_true")
    arguments = options.parse_args()
    sizes = tqdm([size for size in SIZES if size <= arguments.largest], unit="layer")
    figures_by_size = {size: measure(size, "transposable 8:16", 2) for size in sizes}
    text = (
        f"# Scaling\n\n{stamp()}\n\n## transposable 8:16, gaussian, two threads\n\n{by_size(figures_by_size)}\n\n"
        f"![Time and memory against weights](scaling.png)\n\n"
        f"## over m, gaussian, 2048^2 weights, one thread\n\n{by_ratio(2048)}\n"
    )
    print(text)
    if arguments.write:
        folder = ROOT / "docs" / "benchmarks"
        plot(figures_by_size, folder / "scaling.png")
        (folder / "scaling.md").write_text(text)


if __name__ == "__main__":
    main()
