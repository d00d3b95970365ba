"""Compiles the kernels ahead of time, once per machine and version; later processes load them from disk."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np

from ._solve import solve

COMMON_PATTERNS = (
    "transposable 8:16",
    "transposable 2:4",
    "transposable 4:8",
    "transposable 16:32",
    "transposable <=8:16",
    "2:4",
)

OnWarm = Callable[[str, float], None]


def warm_up(patterns: Sequence[str] = COMMON_PATTERNS, on_step: OnWarm | None = None) -> float:
    """Solve a small layer under each pattern, so that later processes need not compile.

    Args:
        patterns: String forms of the patterns to prepare.
        on_step: Called with each pattern and the seconds it took.

    Returns:
        Total seconds; well under a second per pattern if all kernels are on disk already.
    """
    scores = np.abs(np.random.default_rng(0).standard_normal((64, 128), dtype=np.float32))
    scores[:32] = np.round(scores[:32])  # ties, so that the shortest-path kernels are compiled, too
    began = time.perf_counter()
    for pattern in patterns:
        started = time.perf_counter()
        solve(scores, pattern, threads=1)
        if on_step is not None:
            on_step(pattern, time.perf_counter() - started)
    return time.perf_counter() - began
