"""Adapters: convert masks and masked weights to and from the conventions of other libraries.

The libraries name masks differently, and differ in what True means: `torch.nn.utils.prune` and apex use 1 = keep, like
masksmith; SparseGPT and Wanda use True = prune. The functions and classes of this package are loaded at first use; only
those that need torch import it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from masksmith._lazy import EXTRAS, attach

if TYPE_CHECKING:
    from .calculator import MaskCalculator as MaskCalculator, drop_mask as drop_mask, keep_mask as keep_mask
    from .sparse import DeviceError as DeviceError, to_bsr as to_bsr, to_semi_structured as to_semi_structured
    from .state import (
        dense_state as dense_state,
        pruned_state as pruned_state,
        split_pruned_state as split_pruned_state,
    )
    from .torch_prune import MaskPruning as MaskPruning, custom_from_mask as custom_from_mask

__all__, __getattr__, __dir__ = attach(
    __name__,
    {
        "calculator": ("MaskCalculator", "keep_mask", "drop_mask"),
        "sparse": ("DeviceError", "to_bsr", "to_semi_structured"),
        "state": ("dense_state", "pruned_state", "split_pruned_state"),
        "torch_prune": ("MaskPruning", "custom_from_mask"),
    },
    extras=EXTRAS,
)
