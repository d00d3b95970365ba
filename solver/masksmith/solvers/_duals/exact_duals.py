"""Duals of masks that are optimal for integer scores: computed in float64 where its sums are exact, else in int64."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from masksmith._panels import Bools, Duals
from masksmith.patterns import TileSpec

from .centre import centre
from .integers import Exponents, Integers, choose_shifts, to_integers
from .residual import residual_duals


@dataclass(slots=True)
class ScaledTiles:
    """Tiles with scores scaled to integers.

    Attributes:
        tiles: `[T, R, C]` original scores.
        integers: `[T, R, C]`, `round(score * 2^shift)`.
        shifts: `[T]` exponents.
        exact: `[T]`, whether no score was rounded and every sum of up to `R + C + 1` scores is exact in float64. In a
            4x4 tile, the integers then have at most 49 bits, so the sum of any mask is exact, too.
    """

    tiles: npt.NDArray[Any]
    integers: Integers
    shifts: Exponents
    exact: Bools

    @classmethod
    def of(cls, tiles: npt.NDArray[Any], tile: TileSpec) -> ScaledTiles:
        """Scale tiles so that `R + C + 1` times any integer fits into 62 bits."""
        node_bits = (tile.rows + tile.cols + 1).bit_length()
        shifts, needed_bits = choose_shifts(tiles, 61 - node_bits)
        return cls(tiles, to_integers(tiles, shifts), shifts, needed_bits <= 53 - node_bits)

    def halve(self, index: int) -> None:
        """Halve the integers of one tile, rounding up; the tile is no longer `exact`."""
        self.integers[index] = (self.integers[index] + 1) >> 1
        self.shifts[index] -= 1
        self.exact[index] = False


def exact_duals(scaled: ScaledTiles, mask: Bools, tile: TileSpec, free: Bools | None) -> tuple[Duals, Duals]:
    """Compute duals that prove that masks are optimal for the integers; for tiles that are not `exact`, centre them.

    Args:
        scaled: The tiles.
        mask: `[T, R, C]`, optimal for the integers.
        tile: Budgets.
        free: `[T, R, C]`, False where an entry is forced; None if all are free.

    Returns:
        Row duals `[T, R]` and column duals `[T, C]`.
    """
    u, v = np.empty((len(mask), tile.rows)), np.empty((len(mask), tile.cols))
    for group, dtype in ((scaled.exact, np.float64), (~scaled.exact, np.int64)):
        if group.any():
            free_here = None if free is None else free[group]
            exponents = -scaled.shifts[group, None]
            p, q = residual_duals(scaled.integers[group].astype(dtype), mask[group], tile, free_here)
            if dtype is np.int64 and not tile.at_most:
                p, q = _with_middle_at_zero(p, q)
            u[group], v[group] = np.ldexp(p, exponents), np.ldexp(q, exponents)
    if not scaled.exact.all():
        inexact = ~scaled.exact
        free_here = None if free is None else free[inexact]
        scores = scaled.tiles[inexact].astype(np.float64)
        u[inexact], v[inexact] = centre(scores, mask[inexact], tile, u[inexact], v[inexact], free_here)
    return u, v


def _with_middle_at_zero(p: Integers, q: Integers) -> tuple[Integers, Integers]:
    """For each tile, subtract the middle of the range of its column duals from `q`, and add it to its row duals `p`.

    Smaller numbers lose fewer bits as float64. Only for exact budgets: duals of at-most budgets are non-negative.
    """
    middle = (q.min(1, keepdims=True) + q.max(1, keepdims=True)) // 2
    return p + middle, q - middle
