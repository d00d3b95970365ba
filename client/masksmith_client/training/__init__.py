"""Sparse training: masks on a model's layers, refreshed during training, with methods for the pruned weights.

    from masksmith_client import Client
    from masksmith_client.training import Sparsifier

    sparsifier = Sparsifier(model, "transposable 8:16", masks=Client(), refresh=100)
    for batch in batches:
        ...
        optimizer.step()
        sparsifier.step()
    sparsifier.bake()

Names are imported when first used; sparsifier and methods need torch, which the extra `train` installs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from masksmith._lazy import attach

if TYPE_CHECKING:
    from .loggers import RunLogger as RunLogger, TensorBoardLogger as TensorBoardLogger
    from .methods.method import Fixed as Fixed, Method as Method
    from .methods.prune_and_grow import PruneAndGrow as PruneAndGrow
    from .methods.straight_through import (
        SRSTE as SRSTE,
        MaskedDecay as MaskedDecay,
        StraightThrough as StraightThrough,
    )
    from .methods.trainable_thresholds import TrainableThresholds as TrainableThresholds
    from .refresh import Refresh as Refresh
    from .report import LayerReport as LayerReport, RefreshRecord as RefreshRecord, TrainingReport as TrainingReport
    from .schedules import (
        CubicDensity as CubicDensity,
        DensePhases as DensePhases,
        FallingN as FallingN,
        Schedule as Schedule,
    )
    from .sparsifier import Sparsifier as Sparsifier

__all__, __getattr__, __dir__ = attach(
    __name__,
    {
        "sparsifier": ("Sparsifier",),
        "loggers": ("RunLogger", "TensorBoardLogger"),
        "refresh": ("Refresh",),
        "report": ("LayerReport", "RefreshRecord", "TrainingReport"),
        "methods.method": ("Fixed", "Method"),
        "methods.straight_through": ("MaskedDecay", "SRSTE", "StraightThrough"),
        "methods.prune_and_grow": ("PruneAndGrow",),
        "methods.trainable_thresholds": ("TrainableThresholds",),
        "schedules": ("CubicDensity", "DensePhases", "FallingN", "Schedule"),
    },
    extras={"torch": "train"},
)
