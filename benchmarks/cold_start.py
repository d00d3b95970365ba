"""Measure the time of a new process from `import masksmith` to its first mask, with and without cached kernels.

python benchmarks/cold_start.py [--write]
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time

from measuring import ROOT, stamp, table

PATTERNS = ("transposable 8:16", "transposable 2:4", "transposable 16:32", "transposable 3:7", "2:4")
CODE = """
import sys, numpy as np, masksmith as ms
ms.solve(np.random.default_rng(0).random((1024, 1024), np.float32), sys.argv[1], threads=1)
"""


def seconds(pattern: str, cache: str) -> float:
    """Run one process, interpreter start included."""
    environment = os.environ | {"NUMBA_CACHE_DIR": cache}
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", CODE, pattern], env=environment, check=True, stderr=subprocess.DEVNULL)
    return time.perf_counter() - started


def main() -> None:
    """Measure and print; with `--write` also write the page of the documentation."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--write", action="store_true")
    arguments = options.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as shared:
        for pattern in PATTERNS:
            with tempfile.TemporaryDirectory() as empty:
                alone = seconds(pattern, empty)
            after = seconds(pattern, shared)
            warm = min(seconds(pattern, shared) for _ in range(3))
            rows.append([pattern, f"{alone:.1f}", f"{after:.1f}", f"{warm:.2f}"])
            print(rows[-1], flush=True)
    head = ("pattern", "empty cache, s", "after the ones above, s", "warm cache, s")
    what = "From the start of the interpreter to the first mask, of a 1024x1024 layer."
    text = f"# Cold start\n\n{stamp()}\n\n{what}\n\n{table(head, rows)}\n"
    print(text)
    if arguments.write:
        (ROOT / "docs" / "benchmarks" / "cold_start.md").write_text(text)


if __name__ == "__main__":
    main()
