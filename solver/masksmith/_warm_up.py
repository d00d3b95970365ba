"""Compiles the kernels of patterns ahead of time, once per machine and version; later processes load them from disk.

`python -m masksmith._warm_up PATTERN...` compiles in a process of its own; processes that are started at the same time
run one after the other. Half of the time goes into the kernels of shortest paths, which tiles of all sizes share: if
there are several cores, a second process compiles them at the same time. With `--background`, one process with a lower
priority compiles everything; it waits only for others with `--background`.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt

from ._cores import available_cores
from ._panels import Panel
from ._solve import solve
from .kernels.jit import locked, numba_version, on_first_compilation, sources_digest
from .kernels.scan import scan
from .patterns import TilePattern, parse
from .solvers.auto import Auto
from .solvers.exact import Exact, dual_ascent_alone, shortest_paths_alone

COMMON_PATTERNS = (
    "transposable 8:16",
    "transposable 2:4",
    "transposable 4:8",
    "transposable 16:32",
    "transposable <=8:16",
    "2:4",
)
"""Patterns that `warm_up` prepares by default."""

READY_PATTERNS = ("2:4", "transposable 8:16")
"""Patterns whose kernels a worker compiles before it takes jobs; most of these kernels serve other patterns, too."""
LATER_PATTERNS = (
    "transposable 2:4", "transposable 4:8", "transposable 16:32",
    "transposable <=8:16", "transposable <=2:4", "transposable <=4:8", "transposable <=16:32", "4:8", "1:4",
    "transposable 1:4", "transposable 4:16", "transposable 8:32", "64:2:8", "50%",
)  # fmt: skip
"""Patterns of other frequent jobs; a worker compiles their kernels in the background."""
BACKGROUND = "--background"
"""Option that compiles everything in one process with a lower priority."""
SHORTEST_PATHS = "--shortest-paths"
"""Option of the second process, which compiles only the kernels of shortest paths."""
COMPILING = "compiling"
"""The line that is printed when the first kernel has to be compiled."""

OnStep = Callable[[str, float], None]


def warm_up(patterns: Sequence[str] = COMMON_PATTERNS, on_step: OnStep | None = None) -> float:
    """Solve a small layer under each pattern, so that later processes do not compile kernels.

    Args:
        patterns: String forms of the patterns to prepare.
        on_step: Called with each pattern and the seconds it took.

    Returns:
        Total seconds; less than one per pattern if all kernels are on disk already.
    """
    scores = _scores_with_ties()
    began = time.perf_counter()
    for pattern in patterns:
        started = time.perf_counter()
        solve(scores, pattern, threads=1)
        if on_step is not None:
            on_step(pattern, time.perf_counter() - started)
    return time.perf_counter() - began


def main(arguments: Sequence[str]) -> None:
    """Compile the kernels of patterns; or, with `--shortest-paths`, only those of shortest paths.

    Prints `compiling` when the first kernel that is not on disk is needed, and `DONE/STEPS` after each step; nothing
    with `--shortest-paths`.
    """
    patterns = [argument for argument in arguments if not argument.startswith("--")]
    if SHORTEST_PATHS in arguments:
        shortest_paths_alone(_panel("transposable 2:4"))
        return
    if BACKGROUND in arguments:
        os.nice(5)  # not a higher value: a job may wait for a kernel that is compiled here
    # Processes that start at the same time would compile the same kernels: one compiles, the others wait, then load.
    name = "warm_up_later.lock" if BACKGROUND in arguments else "warm_up.lock"
    with on_first_compilation(lambda: _print_line(COMPILING)), locked(_cache_folder() / name):
        if BACKGROUND in arguments or available_cores() == 1:
            _run([partial(warm_up, [pattern]) for pattern in patterns])
        else:
            _warm_up_with_two_processes(patterns)
        _stamp(patterns).touch()


def _warm_up_with_two_processes(patterns: Sequence[str]) -> None:
    """Compile the dual ascent here while a second process compiles the shortest paths; then solve with both.

    If `Exact` solves none of the patterns, there is no second process, since none needs these kernels.
    """
    dual_ascents = [partial(dual_ascent_alone, _panel(pattern)) for pattern in patterns if _uses_exact_solver(pattern)]
    whole_solves = [partial(warm_up, [pattern]) for pattern in patterns]
    command = [sys.executable, "-P", "-m", "masksmith._warm_up", SHORTEST_PATHS]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) if dual_ascents else nullcontext():
        _run([*dual_ascents, *whole_solves])


def _run(steps: Sequence[Callable[[], object]]) -> None:
    """Run the steps, and print after each one how many are done."""
    for number, step in enumerate(steps, 1):
        step()
        _print_line(f"{number}/{len(steps)}")


def _uses_exact_solver(pattern: str) -> bool:
    """Return whether `auto` solves this pattern with `Exact`, which has dual ascent and shortest paths."""
    parsed = parse(pattern)
    return isinstance(parsed, TilePattern) and isinstance(Auto().select(parsed).solver, Exact)


def _panel(pattern: str) -> Panel:
    return Panel(_scores_with_ties(), cast("TilePattern", parse(pattern)).tile)


def _scores_with_ties() -> npt.NDArray[np.float32]:
    """Return scores whose equal entries make the solver use the kernels of shortest paths, too."""
    scores = np.abs(np.random.default_rng(0).standard_normal((64, 128), dtype=np.float32))
    scores[:32] = np.round(scores[:32])
    return scores


def is_warm(patterns: Sequence[str]) -> bool:
    """Whether `main` has ended for this list of patterns, with this source, this version of numba and this processor.

    If a kernel's file was deleted later, the next process that needs the kernel compiles it.
    """
    return _stamp(patterns).exists()


def _stamp(patterns: Sequence[str]) -> Path:
    """Return the path of an empty file, which exists if `main` has ended for these patterns."""
    valid_for = (numba_version, scan.targetctx.codegen().magic_tuple(), sources_digest())  # type: ignore[attr-defined]
    digest = blake2b(repr((tuple(patterns), valid_for)).encode(), digest_size=8).hexdigest()
    return _cache_folder() / f"warm_up.{digest}.done"


def _print_line(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _cache_folder() -> Path:
    return Path(scan._cache.cache_path)  # type: ignore[attr-defined]


if __name__ == "__main__":
    main(sys.argv[1:])
