"""Pruning of a whole model, block by block: each block is calibrated on the outputs of the pruned blocks before it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from masksmith._lazy import EXTRAS, attach

if TYPE_CHECKING:
    from .blocks import BlockList as BlockList, find_blocks as find_blocks
    from .report import BlockReport as BlockReport, PrunedModel as PrunedModel, WeightReport as WeightReport
    from .whole_model import prune as prune

__all__, __getattr__, __dir__ = attach(
    __name__,
    {
        "blocks": ("BlockList", "find_blocks"),
        "report": ("BlockReport", "PrunedModel", "WeightReport"),
        "whole_model": ("prune",),
    },
    extras=EXTRAS,
)
