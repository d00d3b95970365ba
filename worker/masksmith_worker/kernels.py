"""Compiles kernels in separate processes: those of frequent patterns before the worker is ready, others afterwards.

A process needs memory to compile kernels, and keeps it until it ends. The separate processes end, so their memory is
freed; the processes that solve, those of Celery's pool, load these kernels from disk.
"""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Callable

from masksmith._warm_up import BACKGROUND, COMPILING, LATER_PATTERNS, READY_PATTERNS, is_warm

log = logging.getLogger(__name__)

WARM_UP = (sys.executable, "-P", "-m", "masksmith._warm_up")
"""Command that compiles kernels; the patterns are appended to it as arguments."""


def prepare_kernels(report: Callable[[str], None]) -> None:
    """Compile the kernels of frequent patterns, unless they are on disk; report the progress if a kernel is compiled.

    Raises:
        RuntimeError: If the process that compiles fails.
    """
    if is_warm(READY_PATTERNS):
        return
    # The process prints the line `COMPILING` if a kernel is not on disk, and its progress after each step, as `3/12`.
    is_compiling, progress = False, ""
    with subprocess.Popen([*WARM_UP, *READY_PATTERNS], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.strip() == COMPILING:
                is_compiling = True
            else:
                done, _, total = line.strip().partition("/")
                progress = f": {done} of {total}"
            if is_compiling:
                report(f"compiling kernels, once for this machine{progress}")
    if process.returncode:
        raise RuntimeError(f"compiling kernels failed with exit code {process.returncode}")


def start_compiling_others() -> subprocess.Popen[bytes] | None:
    """Start and return a process of lower priority that compiles other patterns' kernels; None if all are on disk."""
    if is_warm(LATER_PATTERNS):
        return None
    command = [*WARM_UP, BACKGROUND, *LATER_PATTERNS]
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
