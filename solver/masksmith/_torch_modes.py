"""Leaves modes of torch that the caller has entered, and in which a computation would fail or lose precision."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

DEVICE_TYPES = ("cpu", "cuda", "xpu", "mps")
"""Types of devices for which autocast is switched off."""


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
