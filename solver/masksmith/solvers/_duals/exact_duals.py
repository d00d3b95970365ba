"""Duals of optimal masks without rounding: in doubles where they suffice, else in 64-bit integers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from masksmith._panels import Bools, Duals
from masksmith.patterns import TileSpec

from .centre import centre
from .integers import Exponents, Integers, exact_shifts, to_integers
from .residual import residual_duals


@dataclass(slots=True)
class ScaledTiles:
    """Tiles and the integers that stand for them.

    Attributes:
        tiles: `[T, R, C]` scores as given.
        integers: `[T, R, C]`, `round(score * 2^shift)`.
        shifts: `[T]`.
        exact: `[T]`, whether nothing was rounded, and doubles hold the sum of any path or mask.
    """

    tiles: npt.NDArray[Any]
    integers: Integers
    shifts: Exponents
    exact: Bools

    @classmethod
    def of(cls, tiles: npt.NDArray[Any], tile: TileSpec) -> ScaledTiles:
        """Scale tiles so that `R + C + 1` times any integer fits 62 bits."""
        nodes = (tile.rows + tile.cols + 1).bit_length()
        shifts, needed = exact_shifts(tiles, 61 - nodes)
        return cls(tiles, to_integers(tiles, shifts), shifts, needed <= 53 - nodes)

    def halve(self, index: int) -> None:
        """Give up the last bit of one tile."""
        self.integers[index] = (self.integers[index] + 1) >> 1
        self.shifts[index] -= 1
        self.exact[index] = False


def exact_duals(scaled: ScaledTiles, mask: Bools, tile: TileSpec, free: Bools | None) -> tuple[Duals, Duals]:
    """Prove masks `[T, R, C]`: duals in exact arithmetic, then centred where doubles cannot hold them.

    Args:
        scaled: The tiles.
        mask: `[T, R, C]`, optimal for the integers.
        tile: Budgets.
        free: `[T, R, C]`, False where an entry is forced; None when all are free.

    Returns:
        Row duals `[T, R]` and column duals `[T, C]`.
    """
    u, v = np.empty((len(mask), tile.rows)), np.empty((len(mask), tile.cols))
    for some, numbers in ((scaled.exact, np.float64), (~scaled.exact, np.int64)):
        if some.any():
            where, back = None if free is None else free[some], -scaled.shifts[some, None]
            p, q, _ = residual_duals(scaled.integers[some].astype(numbers), mask[some], tile, where)
            if numbers is np.int64 and not tile.at_most:
                p, q = _level(p, q)
            u[some], v[some] = np.ldexp(p, back), np.ldexp(q, back)
    if not scaled.exact.all():
        wide = ~scaled.exact
        where, scores = None if free is None else free[wide], scaled.tiles[wide].astype(np.float64)
        u[wide], v[wide] = centre(scores, mask[wide], tile, u[wide], v[wide], where)
    return u, v


def _level(p: Integers, q: Integers) -> tuple[Integers, Integers]:
    """Move what all rows pay to the columns or back (`+s`, `-s`): small numbers survive the way to doubles."""
    middle = (q.min(1, keepdims=True) + q.max(1, keepdims=True)) // 2
    return p + middle, q - middle
