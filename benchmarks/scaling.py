"""How time and memory grow: from 256^2 to 16384^2 weights, and over m.

    python benchmarks/scaling.py [--largest 16384] [--write]

Each size runs in a process of its own, so that its peak memory is its own: the difference between the peak after the
solve and the memory before it, scores already made, is what the solve needed; the mask is a quarter of float32 scores.
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
size, rule, threads = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
rng = np.random.default_rng(0)
scores = np.empty((size, size), np.float32)
for row in scores: row[:] = np.abs(rng.standard_normal(size, dtype=np.float32))
ms.solve(scores[:128, :128], rule, threads=threads)
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
before, seconds = peak(), []
for _ in range(3):
    solution = None  # two masks at once would count as what one solve needs
    begun = time.perf_counter()
    solution = ms.solve(scores, rule, threads=threads)
    seconds.append(time.perf_counter() - begun)
assert solution.gap == 0.0
print(json.dumps({"seconds": min(seconds), "extra": peak() - before, "input": scores.nbytes}))
"""


def measure(size: int, rule: str, threads: int) -> dict[str, float]:
    """Solve one square layer in a fresh process."""
    command = [sys.executable, "-c", CHILD, str(size), rule, str(threads)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def by_size(found_at: dict[int, dict[str, float]]) -> str:
    """Transposable 8:16 on two threads."""
    rows = []
    for size, found in found_at.items():
        extra = (found["extra"] - found["input"] / 4) / found["input"]
        rows.append([f"{size}^2", f"{found['seconds'] * 1e3:.1f}", f"{found['seconds'] / size**2 * 2**20 * 1e3:.2f}",
                     f"{max(0.0, found['extra']) / 2**20:.0f}", f"{max(0.0, extra):.2f}"])  # fmt: skip
    return table(("weights", "ms", "ms per 2^20", "extra MiB, mask included", "extra beyond the mask / input"), rows)


def by_ratio(size: int) -> str:
    """One thread."""
    rows = []
    for ratio in RATIOS:
        found = measure(size, f"transposable {ratio}", 1)
        rows.append([ratio, f"{found['seconds'] / size**2 * 2**20 * 1e3:.2f}"])
    return table(("transposable", "ms per 2^20"), rows)


def plot(found_at: dict[int, dict[str, float]], path: Path) -> None:
    """Draw time and memory against the number of weights, all logarithmic."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    weights = [size**2 for size in found_at]
    left.plot(weights, [found["seconds"] for found in found_at.values()], "o-")
    left.set(xscale="log", yscale="log", xlabel="weights", ylabel="seconds, two threads", title="transposable 8:16")
    right.plot(weights, [found["input"] / 2**20 for found in found_at.values()], "o--", label="scores")
    right.plot(weights, [found["input"] / 2**22 for found in found_at.values()], "o--", label="mask")
    right.plot(weights, [found["extra"] / 2**20 for found in found_at.values()], "o-", label="the solve, mask included")
    right.set(xscale="log", yscale="log", xlabel="weights", ylabel="MiB")
    right.legend()
    for axis in (left, right):
        axis.grid(alpha=0.3)
    figure.savefig(path, dpi=110)


def main() -> None:
    """Measure, print, and write if asked."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--largest", type=int, default=16384)
    options.add_argument("--write", action="store_true")
    given = options.parse_args()
    sizes = tqdm([size for size in SIZES if size <= given.largest], unit="layer")
    found_at = {size: measure(size, "transposable 8:16", 2) for size in sizes}
    text = (
        f"# Scaling\n\n{stamp()}\n\n## transposable 8:16, gaussian, two threads\n\n{by_size(found_at)}\n\n"
        f"![Time and memory against weights](scaling.png)\n\n"
        f"## over m, gaussian, 2048^2 weights, one thread\n\n{by_ratio(2048)}\n"
    )
    print(text)
    if given.write:
        folder = ROOT / "docs" / "benchmarks"
        plot(found_at, folder / "scaling.png")
        (folder / "scaling.md").write_text(text)


if __name__ == "__main__":
    main()
