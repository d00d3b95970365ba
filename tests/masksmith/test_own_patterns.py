"""Patterns of the caller's own, whose tiles solvers do not support."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest

import masksmith as ms
from masksmith.patterns import Grid, TileSpec, matrix_shape


@dataclass(frozen=True)
class Own:
    """A pattern with the given tiles."""

    tile: TileSpec
    ragged: ClassVar[str] = "pad"
    axis: ClassVar[str] = "in"
    density: ClassVar[float] = 0.5

    @property
    def shard_rows(self) -> int:
        return self.tile.rows

    def grid(self, shape: tuple[int, ...]) -> Grid:
        return Grid(*matrix_shape(shape), self.tile.rows, self.tile.cols)

    def __str__(self) -> str:
        return "own"


@pytest.mark.parametrize("solver", [None, "exact", "min-cost-flow", pytest.param("greedy", marks=pytest.mark.torch)])
@pytest.mark.parametrize(
    ("tile", "reason"),
    [
        ((128, 128, 64, 64), "own: a tile of 128x128 entries: its sides must lie between 1 and 64"),
        ((100, 4, 2, 50), "100x4 entries: its sides"),
        ((8, 8, 9, 9), "cannot keep 9 in each row and 9 in each column"),
        ((1, 8, 0, 0), "cannot keep 0 in each row"),
        ((8, 8, 4, 3), r"its rows keep 8\*4 entries but its columns 8\*3; .* at_most=True"),
        ((1, 8, 3, 1), r"its rows keep 1\*3 entries but its columns 8\*1"),
    ],
)
def test_tiles_that_solvers_do_not_support_are_refused(
    tile: tuple[int, int, int, int], reason: str, solver: str | None
) -> None:
    scores = np.random.default_rng(0).random((16, 16))
    with pytest.raises(ms.PatternError, match=reason):
        ms.solve(scores, Own(TileSpec(*tile)), solver)
    assert ms.solve(scores, Own(TileSpec(8, 8, 4, 3, at_most=True))).kept == 4 * 8 * 3
