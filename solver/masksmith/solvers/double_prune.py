"""Double pruning: n:m along the rows, then n:m of the kept entries along the columns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from masksmith._panels import DROP, Bools, Forced, Panel, PanelAnswer, for_kernels
from masksmith.kernels.selection.top_k import top_k
from masksmith.patterns import TileSpec

from .base import Parallelism
from .exact import Exact


@dataclass(frozen=True)
class DoublePrune:
    """Keep the n largest scores of every row group, and then, of the kept scores, the n largest of every column group.

    Ties go to the lowest index. The duals are those of the best mask with at most n per row and column, by `Exact`, so
    the gap shows how much score double pruning loses against that mask.

    Mozaffari et al. (2024), SLoPe: Double-pruned sparse plus lazy low-rank adapter pretraining of LLMs.
    """

    name: ClassVar[str] = "double-prune"
    version: ClassVar[int] = 1
    parallelism: ClassVar[Parallelism] = "threads"

    def refusal(self, tile: TileSpec, *, forced: bool) -> str | None:
        """Return why the solver does not support such tiles, or None if it does."""
        if forced:
            return "double pruning does not support forced entries; exact does"
        if tile.separable or not tile.at_most or tile.rows != tile.cols:
            return (
                "double pruning leaves tiles under-filled: use it with square tiles whose budgets are upper limits, "
                "such as those of 'double 2:4'"
            )
        return None

    def __call__(self, panel: Panel) -> PanelAnswer:
        """Prune a panel in both directions; the duals of `Exact` bound the optimum."""
        panel = for_kernels(panel)
        tile = panel.tile
        nothing_forced = np.zeros((0, 0), np.int8)
        kept_by_rows = _largest(panel.scores, nothing_forced, tile.row_keep, tile.cols)
        row_drops = np.where(kept_by_rows.T, 0, DROP).astype(np.int8)
        kept_by_both = _largest(panel.scores.T, row_drops, tile.col_keep, tile.rows)
        best = Exact()(Panel(panel.scores, tile))
        return PanelAnswer(np.ascontiguousarray(kept_by_both.T), best.row_duals, best.col_duals)


def _largest(scores: npt.NDArray[Any], forced: Forced, keep: int, m: int) -> Bools:
    """Return the mask of the `keep` largest scores of every group of m along the rows.

    An entry with a forced drop is not kept, so a group may keep fewer.
    """
    mask, unused_duals = np.empty(scores.shape, np.bool_), np.empty((scores.shape[0], scores.shape[1] // m))
    at_most = True
    top_k(np.ascontiguousarray(scores), np.ascontiguousarray(forced), keep, at_most, mask, unused_duals)
    return mask
