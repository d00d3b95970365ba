"""Measure starts with and without cached kernels: the first mask of a process, `masksmith up`, and commands.

python benchmarks/cold_start.py [--write]
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from measuring import ROOT, stamp, table

PATTERNS = ("transposable 8:16", "transposable 2:4", "transposable 16:32", "transposable 3:7", "2:4")
CODE = """
import sys, numpy as np, masksmith as ms
ms.solve(np.random.default_rng(0).random((1024, 1024), np.float32), sys.argv[1], threads=1)
"""
MASKSMITH = str(Path(sys.executable).with_name("masksmith"))
STOP_S = 60


def seconds(pattern: str, cache: str) -> float:
    """Seconds of a process that solves one layer, with the start of the interpreter, and with this cache of kernels."""
    environment = os.environ | {"NUMBA_CACHE_DIR": cache}
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", CODE, pattern], env=environment, check=True, stderr=subprocess.DEVNULL)
    return time.perf_counter() - started


def first_masks(shared: str) -> list[list[str]]:
    """Time the first mask of a process for each pattern, with three caches of kernels.

    The caches are an empty one, one with the kernels of the patterns before, and one with the pattern's kernels (the
    least of three times). `shared` is the folder of the last two.
    """
    rows = []
    for pattern in PATTERNS:
        with tempfile.TemporaryDirectory() as empty:
            cold = seconds(pattern, empty)
        after_others = seconds(pattern, shared)
        warm = min(seconds(pattern, shared) for _ in range(3))
        rows.append([pattern, f"{cold:.1f}", f"{after_others:.1f}", f"{warm:.2f}"])
        print(rows[-1], flush=True)
    return rows


def up_seconds(cache: str) -> tuple[float, bool]:
    """Start `masksmith up`; returns the seconds until it is ready, and whether it says that it compiles kernels."""
    with tempfile.TemporaryDirectory() as folder:
        command = [MASKSMITH, "up", "--port", "0", "--data", f"{folder}/data", "--json"]
        environment = os.environ | {"NUMBA_CACHE_DIR": cache}
        started = time.perf_counter()
        with (
            open(f"{folder}/stderr", "w+") as errors,
            subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment) as up,
        ):
            assert up.stdout is not None
            line = up.stdout.readline()
            took = time.perf_counter() - started
            up.send_signal(signal.SIGINT)
            up.wait(STOP_S)
            errors.seek(0)
            if not line:
                raise SystemExit(f"masksmith up ended: {errors.read()}")
            return took, "compil" in errors.read()


def installation_starts() -> list[list[str]]:
    """Time `masksmith up` with an empty cache of kernels, and then with the kernels that it has compiled."""
    with tempfile.TemporaryDirectory() as cache:
        cold, cold_compiles = up_seconds(cache)
        warm = [up_seconds(cache) for _ in range(3)]
    rows = [["empty", f"{cold:.1f}", _yes(cold_compiles)]]
    warm_s, warm_compiles = zip(*warm, strict=True)
    rows.append(["warm", f"{statistics.median(warm_s):.1f}", _yes(any(warm_compiles))])
    print(rows, flush=True)
    return rows


def command_starts() -> list[list[str]]:
    """Time commands that only print a text."""
    rows = []
    for arguments in (["--help"], ["--version"], ["solve", "--help"], ["prune", "--help"]):
        times = []
        for _ in range(10):
            started = time.perf_counter()
            subprocess.run([MASKSMITH, *arguments], check=True, stdout=subprocess.DEVNULL)
            times.append(time.perf_counter() - started)
        rows.append([f"`masksmith {' '.join(arguments)}`", f"{statistics.median(times):.2f}"])
    return rows


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def main() -> None:
    """Measure and print; with `--write` also write the page of the documentation."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--write", action="store_true")
    arguments = options.parse_args()
    starts, commands = installation_starts(), command_starts()
    with tempfile.TemporaryDirectory() as shared:
        masks = first_masks(shared)
    parts = [
        "`masksmith up` until it is ready: kernels compiled or loaded by a worker of one slot per core. Warm: the\n"
        "median of 3 starts.",
        table(("cache of kernels", "ready after, s", "says that it compiles"), starts),
        "Commands that do no work, median of 10.",
        table(("command", "s"), commands),
        "From the start of the interpreter to the first mask, of a 1024x1024 layer.",
        table(("pattern", "empty cache, s", "after the ones above, s", "warm cache, s"), masks),
    ]
    text = f"# Cold start\n\n{stamp()}\n\n" + "\n\n".join(parts) + "\n"
    print(text)
    if arguments.write:
        (ROOT / "docs" / "benchmarks" / "cold_start.md").write_text(text)


if __name__ == "__main__":
    main()
