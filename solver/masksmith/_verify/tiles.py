"""Checks tiles against their pattern by counting their kept entries."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from masksmith._panels import Bools
from masksmith.patterns import TilePattern, TileSpec

Counts = npt.NDArray[np.int64]


def broken_tiles(rows: Bools, pattern: TilePattern, *, at_most: bool = False) -> Bools:
    """Return, for each tile, whether it violates the pattern.

    Args:
        rows: Rows of a mask: one or more tile rows of full height, or the last tile row alone, which may be cropped.
        pattern: The pattern.
        at_most: Whether tiles may keep fewer entries than the pattern requires; a dense edge may then be dropped, too.

    Returns:
        An array `[tile rows, tile columns]`.
    """
    tile = replace(pattern.tile, at_most=True) if at_most else pattern.tile
    height, cols = min(len(rows), tile.rows), rows.shape[1]
    bands = rows.reshape(-1, height, cols)
    if pattern.ragged == "dense" and height < tile.rows:
        # All tiles are cropped, so each must be kept entirely.
        dropped = np.add.reduceat(~rows, np.arange(0, cols, tile.cols), axis=1)
        return np.asarray(dropped.any(axis=0) & (not at_most))[None]
    broken = np.zeros((len(bands), -(-cols // tile.cols)), np.bool_)
    whole_tiles = cols // tile.cols
    covered_cols = whole_tiles * tile.cols
    tiles = bands[:, :, :covered_cols].reshape(len(bands), height, whole_tiles, tile.cols).swapaxes(1, 2)
    broken[:, :whole_tiles] = ~_allowed(tiles.reshape(-1, height, tile.cols), tile).reshape(len(bands), whole_tiles)
    if covered_cols < cols:
        edges = bands[:, :, covered_cols:]
        is_dense = pattern.ragged == "dense"
        broken[:, -1] = ~edges.all(axis=(1, 2)) & (not at_most) if is_dense else ~_allowed(edges, tile)
    return broken


def _allowed(crops: Bools, tile: TileSpec) -> Bools:
    """Return for each crop whether some mask of the padding completes it to an allowed tile.

    Args:
        crops: The parts of tiles that are inside the tensor, `[tiles, rows, cols]`.
        tile: The whole tile; its rows and columns beyond those of the crops are padding.
    """
    _, height, width = crops.shape
    padding_rows, padding_cols = tile.rows - height, tile.cols - width
    row_counts, col_counts = crops.sum(axis=2), crops.sum(axis=1)
    fits = _within(row_counts, tile.row_keep, padding_cols, tile.at_most)
    if tile.separable:
        return fits
    fits &= _within(col_counts, tile.col_keep, padding_rows, tile.at_most)
    if not tile.at_most:
        # Number of entries that must be kept in the corner of padding rows and padding columns: all that the padding
        # rows must keep, less those that complete the columns of the crop.
        in_corner = padding_rows * tile.row_keep - width * tile.col_keep + crops.sum(axis=(1, 2))
        fits &= (in_corner >= 0) & (in_corner <= padding_rows * padding_cols)
    return fits


def _within(counts: Counts, keep: int, padding: int, at_most: bool) -> Bools:
    """Return for each crop whether each count is at most `keep`, and `padding` more entries can raise it to `keep`.

    With `at_most`, a count need not reach `keep`.
    """
    minimum = 0 if at_most else keep - padding
    return np.asarray(((counts <= keep) & (counts >= minimum)).all(axis=1))
