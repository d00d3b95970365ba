"""Prune a model block by block; by default, each block is calibrated on inputs from the blocks pruned before it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from masksmith._lazy import EXTRAS, attach

if TYPE_CHECKING:
    from .blocks import BlockList as BlockList, find_blocks as find_blocks
    from .options import Options as Options
    from .parts import Part as Part
    from .report import (
        BlockReport as BlockReport,
        PrunedModel as PrunedModel,
        Tuning as Tuning,
        WeightReport as WeightReport,
    )
    from .streamed import BlockSource as BlockSource, Progress as Progress, prune_streamed as prune_streamed
    from .tensor_files import (
        check_tensors as check_tensors,
        read_tensors as read_tensors,
        write_tensors as write_tensors,
    )
    from .whole_model import prune as prune

__all__, __getattr__, __dir__ = attach(
    __name__,
    {
        "blocks": ("BlockList", "find_blocks"),
        "options": ("Options",),
        "parts": ("Part",),
        "report": ("BlockReport", "PrunedModel", "Tuning", "WeightReport"),
        "streamed": ("BlockSource", "Progress", "prune_streamed"),
        "tensor_files": ("check_tensors", "read_tensors", "write_tensors"),
        "whole_model": ("prune",),
    },
    extras=EXTRAS,
)
