"""Writes into masked values, which are lost: reading a masked weight returns a temporary tensor.

Writes in place are found when the tensor is deleted, by its version, which also `detach()` and views share. Writes to
its `.data` have a version of their own, and are not found.
"""

from __future__ import annotations

import re
import weakref
from functools import cache

import torch
from torch import Tensor

from .masking import Masking

_INITIALIZER = re.compile(
    r"_*(?:re)?(?:(?:init(?:iali[sz]e)?|reset)_(?:all_)?(?:weights?|param(?:eter)?s)|(?:weights?|param(?:eter)?s)_init)_*"
)


@cache
def is_initializer(function_name: str) -> bool:
    """Whether a function of this name initializes weights, such as `_init_weights` of transformers.

    It needs the dense weight, since it writes to what it reads.
    """
    return _INITIALIZER.fullmatch(function_name) is not None


def watch(masked: Tensor, masking: Masking) -> None:
    """Note in the masking if its masked values are written to before they are deleted.

    Tensors without a version, and those that stand for others while code is traced, are not watched.
    """
    if torch.compiler.is_compiling() or torch.jit.is_tracing() or type(masked) is not Tensor or masked.is_inference():
        return
    same_version = masked.detach()
    finalizer = weakref.finalize(masked, _note, same_version, same_version._version, weakref.ref(masking))
    finalizer.atexit = False


def _note(same_version: Tensor, version: int, masking: weakref.ref[Masking]) -> None:
    target = masking()
    if target is not None and same_version._version != version:
        target.has_lost_write = True
