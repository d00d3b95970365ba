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

from importlib import import_module
from typing import TYPE_CHECKING, Any

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

_HOMES = {
    "Sparsifier": "sparsifier",
    "Refresh": "refresh",
    "LayerReport": "report",
    "RefreshRecord": "report",
    "TrainingReport": "report",
    "Method": "methods.method",
    "Fixed": "methods.fixed",
    "StraightThrough": "methods.straight_through",
    "SRSTE": "methods.sr_ste",
    "MaskedDecay": "methods.masked_decay",
    "PruneAndGrow": "methods.prune_and_grow",
    "TrainableThresholds": "methods.trainable_thresholds",
    "Schedule": "schedules.schedule",
    "CubicDensity": "schedules.cubic",
    "DensePhases": "schedules.dense_phases",
    "FallingN": "schedules.falling_n",
}

__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'masksmith_client.training' has no attribute {name!r}")
    try:
        module = import_module(f".{_HOMES[name]}", __name__)
    except ModuleNotFoundError as error:
        if error.name == "torch":
            raise ModuleNotFoundError(
                f"masksmith_client.training.{name} needs torch: pip install 'masksmith[train]'", name="torch"
            ) from None
        raise
    return getattr(module, name)


def __dir__() -> list[str]:
    return sorted(__all__)
