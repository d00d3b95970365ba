"""Calibration: what data does to a model's layers, gathered once and kept as safetensors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .statistics import Calibration as Calibration, LayerStatistics as LayerStatistics

if TYPE_CHECKING:
    from .forward_passes import calibrate as calibrate

__all__ = ["Calibration", "LayerStatistics", "calibrate"]


def __getattr__(name: str) -> Any:
    if name != "calibrate":
        raise AttributeError(f"module 'masksmith.calibration' has no attribute {name!r}")
    from .forward_passes import calibrate

    return calibrate
