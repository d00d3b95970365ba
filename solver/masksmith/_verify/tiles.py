"""Checks tiles against their pattern by counting."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from masksmith._panels import Bools
from masksmith.patterns import TilePattern, TileSpec

Counts = npt.NDArray[np.int64]


def broken_tiles(rows: Bools, pattern: TilePattern, *, at_most: bool = False) -> Bools:
    """Return, for each tile of one tile row, whether it violates the pattern; `at_most` allows it to keep fewer."""
    tile = replace(pattern.tile, at_most=True) if at_most else pattern.tile
    whole = rows.shape[1] // tile.cols * tile.cols
    short = len(rows) < tile.rows
    broken = np.zeros(-(-rows.shape[1] // tile.cols), np.bool_)
    if pattern.ragged == "dense" and short:
        dropped = np.add.reduceat(~rows, np.arange(0, rows.shape[1], tile.cols), axis=1)
        return np.asarray(dropped.any(axis=0) & (not at_most))
    tiles = rows[:, :whole].reshape(len(rows), -1, tile.cols).transpose(1, 0, 2)
    broken[: len(tiles)] = ~_allowed(tiles, tile)
    if whole < rows.shape[1]:
        edge = rows[None, :, whole:]
        is_allowed = at_most or bool(edge.all())
        broken[-1] = not is_allowed if pattern.ragged == "dense" else not _allowed(edge, tile)[0]
    return broken


def _allowed(crops: Bools, tile: TileSpec) -> Bools:
    """Return, for crops `[tiles, r, c]`, whether some mask of the padding completes each to an allowed tile."""
    _, height, width = crops.shape
    padding_rows, padding_cols = tile.rows - height, tile.cols - width
    in_rows, in_cols = crops.sum(axis=2), crops.sum(axis=1)
    fits = _within(in_rows, tile.row_keep, padding_cols, tile.at_most)
    if tile.separable:
        return fits
    fits &= _within(in_cols, tile.col_keep, padding_rows, tile.at_most)
    if not tile.at_most:
        # What the padding rows must keep where they meet the padding columns.
        in_corner = padding_rows * tile.row_keep - width * tile.col_keep + crops.sum(axis=(1, 2))
        fits &= (in_corner >= 0) & (in_corner <= padding_rows * padding_cols)
    return fits


def _within(counts: Counts, keep: int, padding: int, at_most: bool) -> Bools:
    minimum = 0 if at_most else keep - padding
    return np.asarray(((counts <= keep) & (counts >= minimum)).all(axis=1))
