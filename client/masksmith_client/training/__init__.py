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
    from ._refresh import Refresh as Refresh
    from ._report import LayerReport as LayerReport, RefreshRecord as RefreshRecord, TrainingReport as TrainingReport
    from ._sparsifier import Sparsifier as Sparsifier
    from .methods._fixed import Fixed as Fixed
    from .methods._masked_decay import MaskedDecay as MaskedDecay
    from .methods._method import Method as Method
    from .methods._prune_and_grow import PruneAndGrow as PruneAndGrow
    from .methods._sr_ste import SRSTE as SRSTE
    from .methods._straight_through import StraightThrough as StraightThrough
    from .methods._trainable_thresholds import TrainableThresholds as TrainableThresholds
    from .schedules._cubic import CubicDensity as CubicDensity
    from .schedules._dense_phases import DensePhases as DensePhases
    from .schedules._falling_n import FallingN as FallingN
    from .schedules._schedule import Schedule as Schedule

_HOMES = {
    "Sparsifier": "_sparsifier",
    "Refresh": "_refresh",
    "LayerReport": "_report",
    "RefreshRecord": "_report",
    "TrainingReport": "_report",
    "Method": "methods._method",
    "Fixed": "methods._fixed",
    "StraightThrough": "methods._straight_through",
    "SRSTE": "methods._sr_ste",
    "MaskedDecay": "methods._masked_decay",
    "PruneAndGrow": "methods._prune_and_grow",
    "TrainableThresholds": "methods._trainable_thresholds",
    "Schedule": "schedules._schedule",
    "CubicDensity": "schedules._cubic",
    "DensePhases": "schedules._dense_phases",
    "FallingN": "schedules._falling_n",
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
