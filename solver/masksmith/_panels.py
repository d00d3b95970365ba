"""Panels: rectangles of whole tiles, independent of each other and small enough for a cache.

A tensor is processed panel by panel: solver, certificate, output. Only the current panels are copied, never the tensor.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, TypeGuard, cast

import numpy as np
import numpy.typing as npt

from .patterns import Pattern, TilePattern, TileSpec

Matrix = npt.NDArray[np.float32] | npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Doubles = npt.NDArray[np.float64]
Duals = npt.NDArray[np.float64]
Forced = npt.NDArray[np.int8]

KEEP, FREE, DROP = 1, 0, -1


@dataclass(frozen=True, slots=True)
class Panel:
    """A rectangle of whole tiles, padded with zero scores up to the tile grid.

    Attributes:
        scores: `[down * tile.rows, across * tile.cols]`, finite and non-negative, rows contiguous, float32 or float64.
            A solver cannot write to it, nor to `forced` and `start_duals`.
        tile: Size and budgets of its tiles.
        forced: Per entry `KEEP`, `FREE` or `DROP`; None if every entry is free.
        start_duals: Initial row and column duals (shapes as in `PanelAnswer`), or None.
        output: Uninitialised buffer of the scores' shape; a solver may write its mask there, which saves a copy.
    """

    scores: Matrix
    tile: TileSpec
    forced: Forced | None = None
    start_duals: tuple[Duals, Duals] | None = None
    output: Bools | None = None

    @property
    def down(self) -> int:
        """Tiles from top to bottom."""
        return int(self.scores.shape[0]) // self.tile.rows

    @property
    def across(self) -> int:
        """Tiles from left to right."""
        return int(self.scores.shape[1]) // self.tile.cols

    def tiles(self) -> tuple[npt.NDArray[np.generic], Forced | None]:
        """Return scores and forced entries by tile, `[down * across, tile.rows, tile.cols]`; not to be written to."""
        forced = None if self.forced is None else cast("Forced", to_tiles(self.forced, self.tile))
        return to_tiles(self.scores, self.tile), forced


@dataclass(frozen=True, slots=True)
class PanelAnswer:
    """A solver's result for a panel.

    Attributes:
        mask: `[down * tile.rows, across * tile.cols]`, True = kept.
        row_duals: `[down, across, tile.rows]` float64, the duals of the row budgets.
        col_duals: `[down, across, tile.cols]` float64, the duals of the column budgets; zero for separable tiles.

    Complementary slackness at an optimum: with score w, row dual u and column dual v, kept entries have `w >= u + v`,
    dropped ones `w <= u + v`; at-most budgets have non-negative duals, zero where the budget is not full.
    """

    mask: Bools
    row_duals: Duals
    col_duals: Duals

    @classmethod
    def of_tiles(cls, panel: Panel, mask: Bools, row_duals: Duals, col_duals: Duals) -> PanelAnswer:
        """Build the result from masks `[T, R, C]` and duals `[T, R]` and `[T, C]` of single tiles."""
        shape = (panel.down, panel.across)
        u, v = row_duals.reshape(*shape, panel.tile.rows), col_duals.reshape(*shape, panel.tile.cols)
        return cls(cast("Bools", from_tiles(mask, *shape)), u, v)


def read_only(panel: Panel) -> Panel:
    """Return a panel that a solver cannot change, except its output buffer; it shares the memory of the panel."""
    forced = None if panel.forced is None else _read_only(panel.forced)
    duals = panel.start_duals
    if duals is not None:
        duals = _read_only(duals[0]), _read_only(duals[1])
    return replace(panel, scores=_read_only(panel.scores), forced=forced, start_duals=duals)


def for_kernels(panel: Panel) -> Panel:
    """Return a panel with the types of arrays that kernels are compiled for: numba tells read-only arrays from others.

    Arrays in memory that is read-only itself are copied.
    """
    forced = None if panel.forced is None else _writable(panel.forced)
    return replace(panel, scores=_writable(panel.scores), forced=forced)


def _read_only(array: Any) -> Any:
    view = array.view()
    view.flags.writeable = False
    return view


def _writable(array: Any) -> Any:
    view = array.view()
    try:
        view.flags.writeable = True
    except ValueError:  # The memory itself is read-only.
        return array.copy()
    return view


def has_tiles(pattern: Pattern) -> TypeGuard[TilePattern]:
    """Return whether a pattern has tiles; `isinstance` takes longer: in Python 3.11 it computes all properties."""
    return hasattr(pattern, "tile")


def to_tiles(matrix: npt.NDArray[np.generic], tile: TileSpec) -> npt.NDArray[np.generic]:
    """Rearrange a panel matrix to `[down * across, tile.rows, tile.cols]`; a view where that is possible."""
    down, across = matrix.shape[0] // tile.rows, matrix.shape[1] // tile.cols
    cut = matrix.reshape(down, tile.rows, across, tile.cols).transpose(0, 2, 1, 3)
    return np.ascontiguousarray(cut).reshape(down * across, tile.rows, tile.cols)


def from_tiles(tiles: npt.NDArray[np.generic], down: int, across: int) -> npt.NDArray[np.generic]:
    """Rearrange tiles `[down * across, R, C]` to a panel matrix `[down * R, across * C]`, the inverse of `to_tiles`."""
    _, rows, cols = tiles.shape
    cut = tiles.reshape(down, across, rows, cols).transpose(0, 2, 1, 3)
    return np.ascontiguousarray(cut).reshape(down * rows, across * cols)
