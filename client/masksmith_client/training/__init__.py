"""Masks inside a training loop: chosen layers, refreshed masks, and what gradients do at the pruned weights.

    from masksmith_client import Client
    from masksmith_client.training import Sparsifier

    sparsifier = Sparsifier(model, "transposable 8:16", masks=Client(), refresh=100)
    for batch in batches:
        ...
        optimizer.step()
        sparsifier.step()
    sparsifier.bake()

Names are loaded when first used; they need torch, which the extra `train` brings.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from masksmith._lazy import attach

if TYPE_CHECKING:
    from .methods.fixed import Fixed as Fixed
    from .methods.masked_decay import MaskedDecay as MaskedDecay
    from .methods.method import Method as Method
    from .methods.prune_and_grow import PruneAndGrow as PruneAndGrow
    from .methods.sr_ste import SRSTE as SRSTE
    from .methods.straight_through import StraightThrough as StraightThrough
    from .methods.trainable_thresholds import TrainableThresholds as TrainableThresholds
    from .refresh import Refresh as Refresh
    from .report import LayerReport as LayerReport, RefreshRecord as RefreshRecord, TrainingReport as TrainingReport
    from .schedules.cubic import CubicDensity as CubicDensity
    from .schedules.dense_phases import DensePhases as DensePhases
    from .schedules.falling_n import FallingN as FallingN
    from .schedules.schedule import Schedule as Schedule
    from .sparsifier import Sparsifier as Sparsifier

__all__, __getattr__, __dir__ = attach(
    __name__,
    {
        "sparsifier": ("Sparsifier",),
        "refresh": ("Refresh",),
        "report": ("LayerReport", "RefreshRecord", "TrainingReport"),
        "methods.method": ("Method",),
        "methods.fixed": ("Fixed",),
        "methods.straight_through": ("StraightThrough",),
        "methods.sr_ste": ("SRSTE",),
        "methods.masked_decay": ("MaskedDecay",),
        "methods.prune_and_grow": ("PruneAndGrow",),
        "methods.trainable_thresholds": ("TrainableThresholds",),
        "schedules.schedule": ("Schedule",),
        "schedules.cubic": ("CubicDensity",),
        "schedules.dense_phases": ("DensePhases",),
        "schedules.falling_n": ("FallingN",),
    },
    extra="train",
    brings=("torch",),
)
