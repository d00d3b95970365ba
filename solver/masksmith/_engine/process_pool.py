"""The pool of processes for solvers that hold the interpreter lock, also in forked and daemonic processes."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager

from loky import ProcessPoolExecutor, get_reusable_executor

IDLE_SECONDS = 60
"""Idle processes of the pool end after this time."""

_pool_owner: int | None = None
"""The process that started the reusable pool; None if no process has."""


def may_start_processes() -> bool:
    """Return whether this process may start others; daemonic ones, such as those of `multiprocessing.Pool`, may not."""
    return not multiprocessing.current_process().daemon


@contextmanager
def process_pool(processes: int) -> Iterator[Executor]:
    """Yield a pool of processes, which later calls use again.

    A forked child inherits the pool of its parent, but none of the threads that serve it, so that every call of it
    would wait forever. The child gets a pool of its own, which ends with the `with` block.
    """
    global _pool_owner
    if _pool_owner not in (None, os.getpid()):
        with ProcessPoolExecutor(processes, timeout=IDLE_SECONDS) as pool:
            yield pool
        return
    _pool_owner = os.getpid()
    yield get_reusable_executor(processes, timeout=IDLE_SECONDS)
