"""Grids of blocks: checks and geometry shared by block and hybrid patterns."""

from __future__ import annotations

from typing import Protocol

from .errors import PatternError
from .geometry import Grid, matrix_shape
from .nm import NM
from .pattern import Ragged

MAX_SIDE = 4096
"""Maximum height and width of a block."""


class BlockPattern(Protocol):
    """A pattern that decides about blocks of `rows` x `cols` entries: `Block` or `Hybrid`."""

    @property
    def rows(self) -> int:
        """Height of a block."""
        ...

    @property
    def cols(self) -> int:
        """Width of a block."""
        ...

    @property
    def ragged(self) -> Ragged:
        """Treatment of blocks that extend beyond the matrix."""
        ...


def check_sides(pattern: BlockPattern) -> None:
    """Raise `PatternError` unless both sides of a block lie between 1 and `MAX_SIDE`."""
    if not (1 <= pattern.rows <= MAX_SIDE and 1 <= pattern.cols <= MAX_SIDE):
        raise PatternError(f"{pattern}: the sides of a block must lie between 1 and {MAX_SIDE}")


def can_be_inside(inner: NM) -> bool:
    """Return whether an n:m pattern may apply inside blocks: exact fill, `axis` is `in`, and `ragged` is `pad`."""
    return inner.axis == "in" and inner.fill == "exact" and inner.ragged == "pad"


def check_tiles_fill_blocks(pattern: BlockPattern, inner: NM) -> None:
    """Raise `PatternError` unless blocks consist of whole tiles of the inner pattern."""
    tile = inner.tile
    if pattern.rows % tile.rows or pattern.cols % tile.cols:
        raise PatternError(
            f"{pattern}: tiles of {tile.rows}x{tile.cols} do not fill blocks of {pattern.rows}x{pattern.cols}"
        )


def grid_of_blocks(pattern: BlockPattern, shape: tuple[int, ...]) -> Grid:
    """Return the grid of blocks of a weight, edge blocks included.

    Raises:
        PatternError: If the shape is not that of a weight, or has edge blocks under `ragged="error"`.
    """
    rows, cols = matrix_shape(shape)
    grid = Grid(rows, cols, pattern.rows, pattern.cols)
    if pattern.ragged == "error" and grid.is_ragged:
        raise PatternError(f"{pattern}: blocks do not cover a {rows}x{cols} matrix; choose ragged='pad' or 'dense'")
    return grid


def free_block_counts(pattern: BlockPattern, grid: Grid) -> tuple[int, int]:
    """Return the numbers of block rows and block columns that the pattern decides about.

    These are all of the grid; under `ragged="dense"` only those of whole blocks, since the edge is always kept.

    Raises:
        PatternError: If no whole block fits the matrix under `ragged="dense"`.
    """
    if pattern.ragged != "dense":
        return grid.down, grid.across
    down, across = grid.rows // pattern.rows, grid.cols // pattern.cols
    if down * across == 0:
        raise PatternError(
            f"{pattern}: no whole block fits a {grid.rows}x{grid.cols} matrix, and ragged='dense' keeps the rest"
        )
    return down, across
