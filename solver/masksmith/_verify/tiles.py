"""Checks tiles against their pattern by counting."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from masksmith._panels import Bools
from masksmith.patterns import TilePattern, TileSpec

Counts = npt.NDArray[np.int64]


def broken_tiles(rows: Bools, pattern: TilePattern, *, at_most: bool = False) -> Bools:
    """Return, for each tile, whether it violates the pattern; `at_most` allows it to keep fewer.

    Args:
        rows: One or more whole tile rows, or the last one, which may be shorter.
        pattern: The pattern.
        at_most: Whether fewer entries are allowed.

    Returns:
        An array `[tile rows, tile columns]`.
    """
    tile = replace(pattern.tile, at_most=True) if at_most else pattern.tile
    height, cols = min(len(rows), tile.rows), rows.shape[1]
    bands = rows.reshape(-1, height, cols)
    if pattern.ragged == "dense" and height < tile.rows:
        dropped = np.add.reduceat(~rows, np.arange(0, cols, tile.cols), axis=1)
        return np.asarray(dropped.any(axis=0) & (not at_most))[None]
    broken = np.zeros((len(bands), -(-cols // tile.cols)), np.bool_)
    across = cols // tile.cols
    whole = across * tile.cols
    tiles = bands[:, :, :whole].reshape(len(bands), height, across, tile.cols).swapaxes(1, 2)
    broken[:, :across] = ~_allowed(tiles.reshape(-1, height, tile.cols), tile).reshape(len(bands), across)
    if whole < cols:
        edges = bands[:, :, whole:]
        is_dense = pattern.ragged == "dense"
        broken[:, -1] = ~edges.all(axis=(1, 2)) & (not at_most) if is_dense else ~_allowed(edges, tile)
    return broken


def _allowed(crops: Bools, tile: TileSpec) -> Bools:
    """Return for each crop `[tiles, r, c]` whether some mask of the padding completes it to an allowed tile."""
    _, height, width = crops.shape
    padding_rows, padding_cols = tile.rows - height, tile.cols - width
    in_rows, in_cols = crops.sum(axis=2), crops.sum(axis=1)
    fits = _within(in_rows, tile.row_keep, padding_cols, tile.at_most)
    if tile.separable:
        return fits
    fits &= _within(in_cols, tile.col_keep, padding_rows, tile.at_most)
    if not tile.at_most:
        # Number of entries that must be kept in the corner of padding rows and padding columns.
        in_corner = padding_rows * tile.row_keep - width * tile.col_keep + crops.sum(axis=(1, 2))
        fits &= (in_corner >= 0) & (in_corner <= padding_rows * padding_cols)
    return fits


def _within(counts: Counts, keep: int, padding: int, at_most: bool) -> Bools:
    minimum = 0 if at_most else keep - padding
    return np.asarray(((counts <= keep) & (counts >= minimum)).all(axis=1))
