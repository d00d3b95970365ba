"""Exact solver for plain N:M patterns: the n largest scores of every group."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from masksmith._errors import InfeasibleError
from masksmith._panels import Panel, PanelAnswer, for_kernels
from masksmith.kernels.selection.top_k import top_k, top_k_of_four
from masksmith.patterns import TileSpec

from .base import Parallelism, RefusesByTile


@dataclass(frozen=True)
class TopK(RefusesByTile):
    """Keep the n largest entries of every group of m; exact for patterns whose columns have no budgets.

    Forced entries are kept or dropped first. If no entry is forced, a dual `u` proves optimality: the n-th largest
    score, or 0 if n = m. With scores `w_j` and mask `S_j` of a group, the problem is `max sum_j w_j S_j` over
    `sum_j S_j = n`, `0 <= S_j <= 1`. Its dual problem is `min_u n u + sum_j max(0, w_j - u)`; every kept entry has
    `w_j >= u`, and every dropped one `w_j <= u`. Scores are not negative, so `u` is not negative, and proves optimality
    for `sum_j S_j <= n` (at-most fill), too.
    """

    name: ClassVar[str] = "top-k"
    version: ClassVar[int] = 1
    parallelism: ClassVar[Parallelism] = "threads"

    def __call__(self, panel: Panel) -> PanelAnswer:
        """Solve every group of a panel.

        Raises:
            InfeasibleError: If forced entries leave a group without an allowed mask.
        """
        panel = for_kernels(panel)
        down, across, tile = panel.down, panel.across, panel.tile
        scores = np.ascontiguousarray(panel.scores)
        mask = np.empty(scores.shape, np.bool_) if panel.output is None else panel.output
        duals = np.empty((down, across))
        if tile.cols == 4 and panel.forced is None:
            top_k_of_four(scores.reshape(-1), tile.row_keep, mask.reshape(-1), duals.reshape(-1))
        else:
            # `top_k` takes an array without entries for "nothing is forced".
            forced = np.zeros((0, 0), np.int8) if panel.forced is None else np.ascontiguousarray(panel.forced)
            infeasible_group = top_k(scores, forced, tile.row_keep, tile.at_most, mask, duals)
            if infeasible_group >= 0:
                raise InfeasibleError(_infeasible_message(tile), divmod(int(infeasible_group), across))
        # Column duals are 0, since columns have no budgets; a broadcast array needs no memory.
        col_duals = np.broadcast_to(np.float64(0), (down, across, tile.cols))
        return PanelAnswer(mask, duals.reshape(down, across, 1), col_duals)


def _infeasible_message(tile: TileSpec) -> str:
    fill = "at most" if tile.at_most else "exactly"
    return f"forced entries allow no mask that keeps {fill} {tile.row_keep} of {tile.cols}"
