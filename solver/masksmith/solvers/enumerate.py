"""Solver that enumerates all masks of 4x4 tiles; a simple reference for other solvers."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import combinations, product
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from masksmith._errors import InfeasibleError
from masksmith._panels import DROP, KEEP, Bools, Forced, Panel, PanelAnswer

from ._duals.exact_duals import ScaledTiles, exact_duals
from .base import Parallelism, RefusesByTile

CHUNK_TILES = 128
"""Tiles per matrix product: few enough for the cache, and for BLAS to use one thread."""


@dataclass(frozen=True)
class Enumerate(RefusesByTile):
    """Compute the scores of all allowed masks by a matrix product, and take the first best mask of each 4x4 tile.

    There are 24 masks at 1:4, 90 at 2:4, 24 at 3:4 and 1 at 4:4. The scores are scaled to integers (exactly, unless
    the scores of a tile need more than 57 bits), so that sums are exact in any order, and equal sums are recognised as
    ties. Ties go to the mask whose kept entries come first in row-major order. Duals come from the residual graph of
    the mask.

    Hu et al. (2024), Accelerating transformer pre-training with 2:4 sparsity, ICML (the product with all patterns).
    """

    name: ClassVar[str] = "enumerate"
    version: ClassVar[int] = 1
    parallelism: ClassVar[Parallelism] = "threads"

    def __call__(self, panel: Panel) -> PanelAnswer:
        """Solve every tile of a panel.

        Raises:
            InfeasibleError: If forced entries leave a tile without an allowed mask.
        """
        tile, (tiles, forced) = panel.tile, panel.tiles()
        scaled, choice = ScaledTiles.of(tiles, tile), np.empty(len(tiles), np.intp)
        for at in range(0, len(tiles), CHUNK_TILES):
            part = slice(at, at + CHUNK_TILES)
            choice[part] = _choose(scaled, part, tile.row_keep, None if forced is None else forced[part])
        if (choice < 0).any():
            tile_index = divmod(int(np.argmax(choice < 0)), panel.across)
            raise InfeasibleError("forced entries leave no allowed mask", tile_index)
        mask = all_masks(tile.row_keep)[choice]
        u, v = exact_duals(scaled, mask, tile, None if forced is None else forced == 0)
        return PanelAnswer.of_tiles(panel, mask, u, v)


@cache
def all_masks(n: int) -> Bools:
    """Return the K 4x4 masks with `n` kept in every row and column, `[K, 4, 4]`, ordered by their kept entries."""
    rows = [[place in kept for place in range(4)] for kept in combinations(range(4), n)]
    masks = np.array([mask for mask in product(rows, repeat=4) if (np.sum(mask, axis=0) == n).all()], np.bool_)
    masks.flags.writeable = False
    return masks


def _choose(scaled: ScaledTiles, part: slice, n: int, forced: Forced | None) -> npt.NDArray[np.intp]:
    """Return the index of each tile's first best mask, or -1 if none is allowed."""
    table = all_masks(n).reshape(-1, 16).T.astype(np.float64)  # [16, masks]
    integers = scaled.integers[part].reshape(-1, 16)  # [T, 16]
    # Score that each mask keeps of each tile, [T, masks]; later -1 for a mask that violates the tile's forced entries.
    values: npt.NDArray[Any] = integers.astype(np.float64) @ table
    if not scaled.exact[part].all():
        # Products of the high and low halves are exact in float64, whose matrix product is fast.
        high, low = ((half.astype(np.float64) @ table).astype(np.int64) for half in np.divmod(integers, 1 << 28))
        values = (high << 28) + low
    if forced is not None:
        flat = forced.reshape(-1, 16)
        violated = (flat == KEEP).astype(np.float64) @ (1.0 - table) + (flat == DROP).astype(np.float64) @ table
        values[violated > 0] = -1
    choice = values.argmax(1)
    return np.where(values[np.arange(len(choice)), choice] < 0, -1, choice)
