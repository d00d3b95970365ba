"""Compiles the kernels in processes of their own: frequent ones before the worker is ready, others after that.

A process keeps what it compiles in memory; these processes end, and the pool's processes load the kernels from disk.
"""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Callable

from masksmith._warm_up import BACKGROUND, COMPILING, LATER_PATTERNS, READY_PATTERNS, is_warm

log = logging.getLogger(__name__)

WARM_UP = (sys.executable, "-P", "-m", "masksmith._warm_up")


def prepare_kernels(report: Callable[[str], None]) -> None:
    """Compile the kernels of frequent patterns, unless they are on disk; report the progress of a compilation.

    Raises:
        RuntimeError: If the process that compiles fails.
    """
    if is_warm(READY_PATTERNS):
        return
    is_compiling, steps = False, ""
    with subprocess.Popen([*WARM_UP, *READY_PATTERNS], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.strip() == COMPILING:
                is_compiling = True
            else:
                steps = ": {} of {}".format(*line.strip().split("/"))
            if is_compiling:
                report(f"compiling kernels, once for this machine{steps}")
    if process.returncode:
        raise RuntimeError(f"compiling kernels failed with exit code {process.returncode}")


def compile_later() -> subprocess.Popen[bytes] | None:
    """Start to compile the kernels of other frequent patterns at a lower priority; None if they are on disk."""
    if is_warm(LATER_PATTERNS):
        return None
    command = [*WARM_UP, BACKGROUND, *LATER_PATTERNS]
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
