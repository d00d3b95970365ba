"""Writes into masked values, which are lost: reading a masked weight returns a temporary tensor.

Writes in place are found by the version counter of that tensor, which its `detach()` and its views share. Its `.data`
and the `to_local()` of a DTensor have version counters of their own: writes to them are not found.
"""

from __future__ import annotations

import re
import weakref
from functools import cache

import torch
from torch import Tensor

from .masking import Masking
from .sharding import is_dtensor

_INITIALIZER = re.compile(
    r"_*(?:re)?(?:(?:init(?:iali[sz]e)?|reset)_(?:all_)?(?:weights?|param(?:eter)?s)|(?:weights?|param(?:eter)?s)_init)_*"
)


@cache
def is_initializer(function_name: str) -> bool:
    """Whether a function of this name initializes weights, such as `_init_weights` of transformers.

    It needs the dense weight, since it writes to what it reads.
    """
    return _INITIALIZER.fullmatch(function_name) is not None


class Watch(weakref.ref[Tensor]):
    """A weak reference to masked values, a tensor that shares their version counter, and the version last checked."""

    __slots__ = ("masking", "same_version", "version")
    same_version: Tensor
    version: int
    masking: weakref.ref[Masking]

    def is_written(self) -> bool:
        """Whether the masked values were written to since the last check."""
        before, self.version = self.version, self.same_version._version
        return self.version != before


def watch(masked: Tensor, masking: Masking) -> None:
    """Watch whether masked values are written to before they are deleted.

    Tensors without a version, those that stand for others while code is traced, and those of subclasses other than
    DTensor are not watched.
    """
    is_traced = torch.compiler.is_compiling() or torch._C._is_tracing()
    if is_traced or not (type(masked) is Tensor or is_dtensor(masked)) or masked.is_inference():
        return
    new = Watch(masked, _end)
    new.same_version, new.version, new.masking = masked.detach(), masked._version, weakref.ref(masking)
    masking.__dict__.setdefault("watches", {})[id(new)] = new


def take_lost_write(masking: Masking) -> bool:
    """Return whether masked values were written to since the last call."""
    is_written = [each.is_written() for each in list(masking.__dict__.get("watches", {}).values())]
    had_lost_write, masking.has_lost_write = masking.has_lost_write, False
    return had_lost_write or any(is_written)


def _end(ended: Watch) -> None:
    masking = ended.masking()
    if masking is not None:
        masking.__dict__.get("watches", {}).pop(id(ended), None)
        if ended.is_written():
            masking.has_lost_write = True
