"""Leaves modes of torch that the caller has entered, and in which a computation would fail or lose precision."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from threading import Lock
from typing import Any

DEVICE_TYPES = ("cpu", "cuda", "xpu", "mps")
"""Types of devices for which autocast is switched off."""


class _FusedAttention:
    """Switches torch's setting off while at least one thread needs it off; the setting belongs to the whole process."""

    def __init__(self) -> None:
        self._lock, self._users, self._was_enabled = Lock(), 0, True

    def enter(self) -> None:
        import torch

        with self._lock:
            if not self._users:
                self._was_enabled = torch.backends.mha.get_fastpath_enabled()
                torch.backends.mha.set_fastpath_enabled(False)
            self._users += 1

    def leave(self) -> None:
        import torch

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


@contextmanager
def without_autocast() -> Iterator[None]:
    """Switch `torch.autocast` off within the context: it would multiply matrices of float32 in 16 bits.

    Also a decorator, `@without_autocast()`. Does nothing if torch is not loaded.
    """
    torch: Any = sys.modules.get("torch")
    # While another thread imports torch, the module is there, but may still lack these functions.
    is_loaded = hasattr(torch, "is_autocast_enabled") and hasattr(torch, "autocast")
    with ExitStack() as stack:
        for device_type in DEVICE_TYPES if is_loaded else ():
            if torch.is_autocast_enabled(device_type):
                stack.enter_context(torch.autocast(device_type, enabled=False))
        yield


@contextmanager
def without_inference_mode() -> Iterator[None]:
    """Leave `torch.inference_mode` within the context: tensors created in it have no gradients and no version counters.

    Whether gradients are enabled stays as it is.
    """
    import torch

    are_gradients_enabled = torch.is_grad_enabled()
    with torch.inference_mode(mode=False), torch.set_grad_enabled(are_gradients_enabled):
        yield
