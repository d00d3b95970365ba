"""Double pruning: n:m along the rows, then n:m of what is left along the columns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from masksmith._panels import DROP, Bools, Forced, Panel, PanelAnswer
from masksmith.kernels.selection.top_k import top_k
from masksmith.patterns import TileSpec

from .base import Parallelism
from .exact import Exact


@dataclass(frozen=True)
class DoublePrune:
    """Keep the n largest of every row group, then of those the n largest of every column group.

    Ties go to the lowest index. The duals are those of the best mask with at most n kept both ways, by `Exact`: the gap
    is what double pruning loses.

    Mozaffari et al. (2024), SLoPe: Double-pruned sparse plus lazy low-rank adapter pretraining of LLMs.
    """

    name: ClassVar[str] = "double-prune"
    version: ClassVar[int] = 1
    parallelism: ClassVar[Parallelism] = "threads"

    def refusal(self, tile: TileSpec, *, forced: bool) -> str | None:
        """Refuse forced entries, and tiles that must be filled or are bound one way only."""
        if forced:
            return "double pruning knows no forced entries; exact does"
        if tile.separable or not tile.at_most or tile.rows != tile.cols:
            return "double pruning leaves tiles under-filled: it is for patterns such as 'double 2:4'"
        return None

    def __call__(self, panel: Panel) -> PanelAnswer:
        """Prune a panel twice, and bound it by the best mask's duals."""
        tile = panel.tile
        once = _largest(panel.scores, np.zeros((0, 0), np.int8), tile.row_keep, tile.cols)
        forced = np.where(once.T, 0, DROP).astype(np.int8)
        twice = _largest(panel.scores.T, forced, tile.col_keep, tile.rows)
        best = Exact()(Panel(panel.scores, tile))
        return PanelAnswer(np.ascontiguousarray(twice.T), best.row_duals, best.col_duals)


def _largest(scores: npt.NDArray[Any], forced: Forced, keep: int, m: int) -> Bools:
    mask, duals = np.empty(scores.shape, np.bool_), np.empty((scores.shape[0], scores.shape[1] // m))
    top_k(np.ascontiguousarray(scores), np.ascontiguousarray(forced), keep, True, mask, duals)
    return mask
