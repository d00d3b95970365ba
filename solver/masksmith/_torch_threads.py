"""Limits the number of threads of torch's operations for a time, also in several threads at once."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

_lock = threading.Lock()
_contexts: list[tuple[int, int]] = []
"""For each context that is entered: its thread, and the number that the first of them found, to be restored."""


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Set torch's number of threads in the calling thread, and restore it afterwards; contexts may be nested.

    Several threads may be in the context at once. torch keeps the number for each calling thread, so a thread that
    restores it does not change it for the others. But a new thread begins with the number that any thread has set last,
    which may be that of a context: therefore all threads restore the number that the first one read.
    """
    thread = threading.get_ident()
    with _lock:
        before = torch.get_num_threads()
        if _contexts and all(thread != other for other, _ in _contexts):
            before = _contexts[0][1]
        context = (thread, _contexts[0][1] if _contexts else before)
        _contexts.append(context)
        torch.set_num_threads(count)
    try:
        yield
    finally:
        with _lock:
            _contexts.remove(context)
            torch.set_num_threads(before)
