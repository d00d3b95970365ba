"""Precision of float32 products in torch, which has two interfaces for it.

The older one (`set_float32_matmul_precision`, `allow_tf32`) raises an error when it is read after the newer one
(`fp32_precision`) was used, so the newer one is read first.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def full_float32_precision() -> Iterator[None]:
    """Compute float32 products in float32, without TF32 or bfloat16, and restore what was set before."""
    before = [(backend, backend.fp32_precision) for backend in _backends()]
    older = _older_setting()
    if older is None:
        for backend, _ in before:
            backend.fp32_precision = "ieee"
    else:
        torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        if older is not None:
            torch.set_float32_matmul_precision(older)
        for backend, precision in before:
            backend.fp32_precision = precision


def allows_tf32() -> bool:
    """Whether float32 products on CUDA devices may be computed in TF32."""
    matmul: Any = torch.backends.cuda.matmul
    return bool(matmul.fp32_precision == "tf32" if hasattr(matmul, "fp32_precision") else matmul.allow_tf32)


def _backends() -> list[Any]:
    """Return the settings of CUDA devices and CPUs in the newer interface; none before torch 2.9."""
    backends = (torch.backends.cuda.matmul, getattr(torch.backends.mkldnn, "matmul", None))
    return [backend for backend in backends if hasattr(backend, "fp32_precision")]


def _older_setting() -> str | None:
    """Return the setting in the older interface; None if it cannot be read, because the newer one was used."""
    try:
        return torch.get_float32_matmul_precision()
    except RuntimeError:
        return None
