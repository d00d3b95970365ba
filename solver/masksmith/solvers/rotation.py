"""Solver that returns the same allowed mask for all scores.

Panels that are not solved yet when the time limit of `solve` ends get this mask, whatever solver was chosen.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from masksmith._panels import Panel, PanelAnswer
from masksmith.patterns import TileSpec

from .base import Parallelism


@dataclass(frozen=True)
class Rotation:
    """Return a fixed mask, in which row i keeps the `row_keep` columns that follow those of row i - 1, cyclically.

    If `rows * row_keep` is a multiple of `cols`, every column keeps equally many entries. If columns have budgets and
    `rows * row_keep > cols * col_keep`, the last rows keep fewer entries, or none, since all columns are full. Duals
    are zero, so the bound is the sum of all scores.
    """

    name: ClassVar[str] = "rotation"
    version: ClassVar[int] = 1
    parallelism: ClassVar[Parallelism] = "threads"

    def refusal(self, tile: TileSpec, *, forced: bool) -> str | None:
        """Return why the solver does not support tiles with forced entries; None without forced entries."""
        return "rotation does not support forced entries; use exact" if forced else None

    def __call__(self, panel: Panel) -> PanelAnswer:
        """Return the same mask for every tile."""
        tile = panel.tile
        entry = np.arange(tile.rows * tile.row_keep)
        if not tile.separable:
            entry = entry[: tile.cols * tile.col_keep]
        mask = np.zeros((tile.rows, tile.cols), np.bool_)
        mask[entry // tile.row_keep, entry % tile.cols] = True
        return PanelAnswer(
            np.tile(mask, (panel.down, panel.across)),
            np.zeros((panel.down, panel.across, tile.rows)),
            np.zeros((panel.down, panel.across, tile.cols)),
        )
