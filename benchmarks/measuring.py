"""Measurement functions of the benchmarks: interleaved rounds, medians, and machine and commit for each table."""

from __future__ import annotations

import gc
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TypeVar

import numpy as np

T = TypeVar("T")
ROOT = Path(__file__).resolve().parent.parent
MEASURED = (
    "solver", "wire", "state", "service", "worker", "client", "benchmarks", "examples", "tests/support",
    "pyproject.toml", "constraints.txt",
)  # fmt: skip
"""Files and folders on which the figures of benchmarks depend."""


def interleave(runs: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Time each run once per round, after one untimed call of each; returns the seconds of each run, by name.

    Ratios of two runs of the same round depend little on the load of the machine.
    """
    for run in runs.values():
        run()
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            gc.collect()
            begun = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - begun)
    return seconds


def alternating(runs: Sequence[T], round_number: int) -> list[T]:
    """Return the order of a round: reversed in every other one, so that none always follows the same other one."""
    return list(runs)[:: -1 if round_number % 2 else 1]


def ratio(slow: Sequence[float], fast: Sequence[float]) -> float:
    """Return the median over rounds of the ratio of two runs' times."""
    return statistics.median(a / b for a, b in zip(slow, fast, strict=True))


def commit() -> str:
    """Return the commit that is checked out, with `+changes` if files of `MEASURED` differ from it.

    `unknown` where git does not say, as outside of a clone.
    """
    name, changes = _git("rev-parse", "--short", "HEAD"), _git("status", "--porcelain", "--", *MEASURED)
    return "unknown" if name is None or changes is None else name + ("+changes" if changes else "")


def stamp() -> str:
    """Return machine, commit, versions and date."""
    packages = ", ".join(f"{name} {version(name)}" for name in ("numpy", "numba", "ortools", "torch"))
    day = datetime.now(UTC).date()
    return f"Machine: {_processor()}, {platform.system()}; commit {commit()}; {packages}; {day}."


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Render a Markdown table; the first column is aligned left, all other columns right."""
    widths = [max(len(row[k]) for row in [head, *rows]) for k in range(len(head))]
    lines = [
        _line(head, widths),
        "|" + "|".join("-" * (w + 1) + (":" if k else "-") for k, w in enumerate(widths)) + "|",
    ]
    return "\n".join([*lines, *(_line(row, widths) for row in rows)])


def gaussian(rows: int, cols: int, seed: int = 0) -> np.ndarray:
    """Weights like those of a freshly initialised layer."""
    return np.random.default_rng(seed).standard_normal((rows, cols), dtype=np.float32)


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    padded = [cell.ljust(w) if k == 0 else cell.rjust(w) for k, (cell, w) in enumerate(zip(cells, widths, strict=True))]
    return "| " + " | ".join(padded) + " |"


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    names = [line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
    return f"{len(names)} cores of {names[0]}" if names else platform.machine()


def _git(*arguments: str) -> str | None:
    """Return the output of a command of git; None if it fails."""
    try:
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
