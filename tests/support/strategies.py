"""Scores that are hard on solvers, by name, and hypothesis strategies for whole panels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import strategies as st

from masksmith._panels import Panel
from masksmith.patterns import TileSpec

from .axes import is_long_run

EXACT_TILES = [
    TileSpec(*sides, *keeps)
    for sides, keeps in [
        ((4, 4), (2, 2)), ((4, 4), (1, 1)), ((4, 4), (3, 3)), ((4, 4), (4, 4)), ((8, 8), (4, 4)), ((8, 8), (1, 1)),
        ((7, 7), (3, 3)), ((12, 12), (5, 5)), ((16, 16), (8, 8)), ((16, 16), (4, 4)), ((32, 32), (16, 16)),
        ((4, 8), (4, 2)), ((8, 16), (8, 4)), ((4, 8), (6, 3)), ((6, 9), (3, 2)), ((1, 1), (1, 1)), ((3, 3), (1, 1)),
        ((2, 2), (1, 1)),
    ]
]  # fmt: skip
SIZES = frozenset({1, 4, 7, 8, 16, 32})
"""Sides of square tiles in every run. Each size is compiled on its own; `make test-long` has many more."""
OBLONG = TileSpec(4, 8, 4, 2)
"""The tile in every run whose sides differ: each pair of sides is compiled on its own, too."""
SHORT_SIDE = 8
"""Side of the square tiles that hypothesis draws in every run."""
LARGE_TILES = [TileSpec(64, 64, n, n) for n in (1, 32, 33, 63)]
LOOSE_TILES = [
    TileSpec(8, 8, 5, 3, True),
    TileSpec(8, 16, 5, 3, True),
    TileSpec(5, 7, 3, 3, True),
    TileSpec(5, 5, 2, 5, True),
    TileSpec(4, 4, 4, 1, True),
]


def slow_sizes_marked(tiles: Sequence[TileSpec]) -> list[Any]:
    """Parameters of a test, with tiles of rare sizes and keeps marked as slow: each has kernels of its own."""
    return [pytest.param(tile, marks=() if _is_in_every_run(tile) else pytest.mark.slow) for tile in tiles]


def _is_in_every_run(tile: TileSpec) -> bool:
    if tile.rows != tile.cols:
        return replace(tile, at_most=False) == OBLONG
    return tile.rows in SIZES and (tile.rows < 16 or 2 * tile.row_keep == tile.rows)


def loose(tile: TileSpec) -> TileSpec:
    """Return the tile with at-most fill."""
    return TileSpec(tile.rows, tile.cols, tile.row_keep, tile.col_keep, at_most=True)


def _in_tile(shape, tile):
    return np.arange(shape[0])[:, None] % tile.rows, np.arange(shape[1])[None, :] % tile.cols


def _one_big(rng, shape, tile):
    i, j = _in_tile(shape, tile)
    return 5.0 * ((i == 0) & (j == 0))


def _block_diagonal(rng, shape, tile):
    i, j = _in_tile(shape, tile)
    return np.abs(rng.normal(size=shape)) * (2 * i // tile.rows == 2 * j // tile.cols)


SCORES = {
    "gaussian": lambda rng, shape, tile: np.abs(rng.normal(size=shape)),
    "student t": lambda rng, shape, tile: np.abs(rng.standard_t(1.5, size=shape)),
    "cauchy squared": lambda rng, shape, tile: rng.standard_cauchy(size=shape) ** 2,
    "integers": lambda rng, shape, tile: rng.integers(0, 6, size=shape),
    "binary": lambda rng, shape, tile: rng.integers(0, 2, size=shape),
    "mostly zero": lambda rng, shape, tile: np.abs(rng.normal(size=shape)) * (rng.random(shape) < 0.1),
    "constant": lambda rng, shape, tile: np.full(shape, 0.37),
    "zero": lambda rng, shape, tile: np.zeros(shape),
    "rank one": lambda rng, shape, tile: np.abs(np.outer(rng.normal(size=shape[0]), rng.normal(size=shape[1]))),
    "int8": lambda rng, shape, tile: np.abs(rng.normal(size=shape) * 40).round().clip(0, 127),
    "empty rows": lambda rng, shape, tile: np.abs(rng.normal(size=shape)) * (rng.random((shape[0], 1)) < 0.7),
    "one big": _one_big,
    "block diagonal": _block_diagonal,
    "denormal": lambda rng, shape, tile: np.abs(rng.normal(size=shape)) * 1e-40,
    "huge": lambda rng, shape, tile: np.abs(rng.normal(size=shape)) * 1e37,
    "bfloat16": lambda rng, shape, tile: _bfloat16(np.abs(rng.normal(size=shape))),
    "additive": lambda rng, shape, tile: _additive(rng, shape),
}
"""Generators of float32 scores for which float64 duals always give a gap of 0.0."""


def _bfloat16(scores):
    return (scores.astype(np.float32).view(np.uint32) & 0xFFFF0000).view(np.float32)


def _additive(rng, shape):
    return np.abs(rng.normal(size=(shape[0], 1))) + np.abs(rng.normal(size=(1, shape[1])))


def column_scales(rng, shape, tile):
    """Columns sixty orders of magnitude apart: beyond float64, whose duals leave a tiny gap."""
    return np.abs(rng.normal(size=shape)) * 10.0 ** rng.uniform(-30, 30, size=(1, shape[1]))


def scores_of(name, seed, tile, down=2, across=3, dtype=np.float32):
    """Draw a panel's scores."""
    shape = (down * tile.rows, across * tile.cols)
    return np.ascontiguousarray(SCORES[name](np.random.default_rng(seed), shape, tile), dtype)


@st.composite
def tiles(draw, at_most=None):
    """Any transposable tile with sides up to 9 (short runs: 8); exact budgets always meet.

    In short runs rows and columns keep half of their entries both, or neither does: the others have kernels of their
    own.
    """
    limited = draw(st.booleans()) if at_most is None else at_most
    sides = st.integers(1, 9) if is_long_run() else st.just(SHORT_SIDE)
    rows, cols = draw(st.tuples(sides, sides))
    if limited:
        keeps = st.tuples(st.integers(1, cols), st.integers(1, rows))
        kept = draw(keeps if is_long_run() else keeps.filter(lambda two: two.count(SHORT_SIDE // 2) != 1))
        return TileSpec(rows, cols, *kept, at_most=True)
    step = np.gcd(rows, cols)
    units = draw(st.integers(1, int(step)))
    return TileSpec(rows, cols, cols // int(step) * units, rows // int(step) * units)


@st.composite
def panels(draw, at_most=None, names=tuple(SCORES)):
    """Small panels of one generator."""
    tile = draw(tiles(at_most))
    scores = scores_of(draw(st.sampled_from(names)), draw(st.integers(0, 2**32)), tile, draw(st.integers(1, 2)), 3)
    return Panel(scores, tile)


@st.composite
def forced_panels(draw):
    """Panels with forced entries, some of them impossible."""
    panel = draw(panels())
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    share = draw(st.sampled_from([0.02, 0.1, 0.3]))
    forced = rng.choice([0, 1, -1], panel.scores.shape, p=[1 - 2 * share, share, share]).astype(np.int8)
    return Panel(panel.scores, panel.tile, forced)
