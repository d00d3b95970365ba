"""Adapters: masks into the hands of other people's code, and out of them.

Polarity and names differ: `torch.nn.utils.prune` and apex say 1 = keep, as masksmith does; SparseGPT and Wanda say True
= prune. Each adapter here speaks its partner's language. Names are loaded when first used; torch comes with those that
need it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .calculator import MaskCalculator as MaskCalculator, drop_mask as drop_mask, keep_mask as keep_mask
    from .sparse import DeviceError as DeviceError, to_bsr as to_bsr, to_semi_structured as to_semi_structured
    from .state import (
        dense_state as dense_state,
        pruned_state as pruned_state,
        split_pruned_state as split_pruned_state,
    )
    from .torch_prune import MaskPruning as MaskPruning, custom_from_mask as custom_from_mask

_HOMES = {
    "MaskCalculator": "calculator",
    "keep_mask": "calculator",
    "drop_mask": "calculator",
    "DeviceError": "sparse",
    "to_bsr": "sparse",
    "to_semi_structured": "sparse",
    "dense_state": "state",
    "pruned_state": "state",
    "split_pruned_state": "state",
    "MaskPruning": "torch_prune",
    "custom_from_mask": "torch_prune",
}

__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'masksmith.adapters' has no attribute {name!r}")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted(__all__)
