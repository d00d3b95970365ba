"""Calibration: statistics of a model's layers on data, gathered once and stored as safetensors."""

from __future__ import annotations

from typing import TYPE_CHECKING

from masksmith._lazy import EXTRAS, attach

if TYPE_CHECKING:
    from .forward_passes import calibrate as calibrate
    from .statistics import Calibration as Calibration, LayerStatistics as LayerStatistics

__all__, __getattr__, __dir__ = attach(
    __name__,
    {"statistics": ("Calibration", "LayerStatistics"), "forward_passes": ("calibrate",)},
    extras=EXTRAS,
)
