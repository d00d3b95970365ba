"""Rotation: some allowed mask at once, whatever the scores; what remains to hand out when time is up."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from masksmith._panels import Panel, PanelAnswer
from masksmith.patterns import TileSpec

from .base import Parallelism


@dataclass(frozen=True)
class Rotation:
    """Row i keeps the `row_keep` columns that follow those of row i - 1, around the tile.

    Consecutive runs of `rows * row_keep = cols * col_keep` places cover each column equally often. Under unequal
    upper limits the rows stop when the columns are full. Duals are zero: they prove the sum of all scores.
    """

    name: ClassVar[str] = "rotation"
    version: ClassVar[int] = 1
    parallelism: ClassVar[Parallelism] = "threads"

    def refusal(self, tile: TileSpec, *, forced: bool) -> str | None:
        """Forced entries need a search."""
        return "rotation cannot honour forced entries; use exact" if forced else None

    def __call__(self, panel: Panel) -> PanelAnswer:
        """Give every tile the same rotated mask."""
        tile = panel.tile
        place = np.arange(tile.rows * tile.row_keep)
        if not tile.separable:
            place = place[: tile.cols * tile.col_keep]
        mask = np.zeros((tile.rows, tile.cols), np.bool_)
        mask[place // tile.row_keep, place % tile.cols] = True
        return PanelAnswer(
            np.tile(mask, (panel.down, panel.across)),
            np.zeros((panel.down, panel.across, tile.rows)),
            np.zeros((panel.down, panel.across, tile.cols)),
        )
