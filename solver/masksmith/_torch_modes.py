"""Leaves modes of torch that the caller has entered, and in which a computation would fail or lose precision."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

DEVICE_TYPES = ("cpu", "cuda", "xpu", "mps")
"""Types of devices for which autocast is switched off."""


@contextmanager
def in_full_precision() -> Iterator[None]:
    """Switch off `torch.autocast`, and products of float32 in fewer bits (`torch.set_float32_matmul_precision`).

    Also a decorator, `@in_full_precision()`. Does nothing if torch is not loaded.
    """
    with without_autocast(), _FULL_PRECISION.made():
        yield


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


class _ProcessSetting:
    """A setting of torch that belongs to the whole process, and that several threads may need at the same time.

    It is made when a first thread enters the context, and restored when the last one has left it.

    Args:
        make: Makes the setting, and returns the function that restores what was set before.
    """

    def __init__(self, make: Callable[[], Callable[[], None]]) -> None:
        self._make, self._restore = make, _nothing
        self._lock, self._depth = threading.Lock(), 0

    @contextmanager
    def made(self) -> Iterator[None]:
        """Make the setting for the context."""
        with self._lock:
            if self._depth == 0:
                self._restore = self._make()
            self._depth += 1
        try:
            yield
        finally:
            with self._lock:
                self._depth -= 1
                if self._depth == 0:
                    self._restore()


def _set_full_precision() -> Callable[[], None]:
    """Multiply float32 in full precision from now on; return a function that restores the settings as they are."""
    torch: Any = sys.modules.get("torch")
    if not hasattr(torch, "get_float32_matmul_precision"):  # not loaded
        return _nothing
    try:
        precision = torch.get_float32_matmul_precision()
    except RuntimeError:  # set by backend, as torch 2.9 and later can
        precision = None
    if precision == "highest":
        return _nothing
    modules: list[Any] = [getattr(getattr(torch.backends, name), "matmul", None) for name in ("cuda", "mkldnn")]
    settings = [(module, module.fp32_precision) for module in modules if hasattr(module, "fp32_precision")]
    if precision is not None:
        torch.set_float32_matmul_precision("highest")
    for module, _ in settings:
        module.fp32_precision = "ieee"
    return partial(_restore_precision, precision, settings)


def _restore_precision(precision: str | None, settings: list[tuple[Any, str]]) -> None:
    torch: Any = sys.modules["torch"]
    if precision is not None:
        torch.set_float32_matmul_precision(precision)
    for module, value in settings:
        module.fp32_precision = "none"  # the value of `torch.backends.fp32_precision`
        if module.fp32_precision != value:
            module.fp32_precision = value


def _nothing() -> None:
    pass


def _switch_fused_attention_off() -> Callable[[], None]:
    """Switch fused attention off from now on; return a function that restores the setting."""
    import torch

    was_enabled = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    return partial(torch.backends.mha.set_fastpath_enabled, was_enabled)


_FULL_PRECISION = _ProcessSetting(_set_full_precision)
_NO_FUSED_ATTENTION = _ProcessSetting(_switch_fused_attention_off)


@contextmanager
def without_fused_attention() -> Iterator[None]:
    """Compute `torch.nn.MultiheadAttention` and layers with it step by step within the context.

    In evaluation mode torch computes them in one operation, in which products with weights cannot be watched.
    """
    with _NO_FUSED_ATTENTION.made():
        yield


@contextmanager
def without_inference_mode() -> Iterator[None]:
    """Leave `torch.inference_mode` within the context: in that mode, tensors get no gradients and no version counters.

    Whether gradients are enabled stays as it is.
    """
    import torch

    are_gradients_enabled = torch.is_grad_enabled()
    with torch.inference_mode(mode=False), torch.set_grad_enabled(are_gradients_enabled):
        yield
