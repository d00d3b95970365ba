"""Switches off torch's attention in one operation, while the products of a model's weights are watched."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

import torch


class _FusedAttention:
    """Switches torch's setting off while at least one thread needs it off; the setting belongs to the whole process."""

    def __init__(self) -> None:
        self._lock, self._users, self._was_enabled = Lock(), 0, True

    def enter(self) -> None:
        with self._lock:
            if not self._users:
                self._was_enabled = torch.backends.mha.get_fastpath_enabled()
                torch.backends.mha.set_fastpath_enabled(False)
            self._users += 1

    def leave(self) -> None:
        with self._lock:
            self._users -= 1
            if not self._users:
                torch.backends.mha.set_fastpath_enabled(self._was_enabled)


_FUSED_ATTENTION = _FusedAttention()


@contextmanager
def without_fused_attention() -> Iterator[None]:
    """Compute `torch.nn.MultiheadAttention` and layers with it step by step within the context.

    In evaluation mode torch computes them in one operation, in which products with weights cannot be watched.
    """
    _FUSED_ATTENTION.enter()
    try:
        yield
    finally:
        _FUSED_ATTENTION.leave()
