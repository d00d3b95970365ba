"""Computes windows and profiles of a layer; only a part of the layer is in memory at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from masksmith_state.blobs.store import BlobStore

from .reader import NARROW_WIDTH, Floats, MaskedLayer

MAX_SIDE = 1024
"""Maximum number of cells along a side of a window."""
MAX_CELLS = 2**18
"""Maximum number of cells of a window."""
BAND_BYTES = 8 * 2**20
"""Maximum bytes of scores, or of a mask, that are read at once; a single row may be larger."""
BAND_ROWS = 2**16
"""Maximum number of rows that are read at once, since each row takes memory, too."""
SAMPLED_ENTRIES = 2**24
"""Maximum number of entries that are read for a window; at least one row of each cell is read."""
SAMPLED_ROWS = 64
"""Maximum number of rows whose scores are read for a profile."""
HISTOGRAM_BINS = 60


@dataclass(frozen=True)
class Window:
    """A rectangle of cells, each `step` x `step` entries of the matrix.

    Attributes:
        first_row, first_col: Row and column of the matrix where the window starts.
        cell_rows, cell_cols: Number of cells vertically and horizontally.
        step: Entries along a cell's side; cells at the edge of the matrix may be smaller.
    """

    first_row: int
    first_col: int
    cell_rows: int
    cell_cols: int
    step: int = 1

    def clipped(self, shape: tuple[int, int]) -> Window:
        """Return the part of the window that is inside a matrix of this shape; the window must start inside."""
        max_cell_rows, max_cell_cols = (
            -(-(length - first) // self.step)
            for length, first in zip(shape, (self.first_row, self.first_col), strict=True)
        )
        cell_rows, cell_cols = min(self.cell_rows, max_cell_rows), min(self.cell_cols, max_cell_cols)
        return Window(self.first_row, self.first_col, cell_rows, cell_cols, self.step)

    def stops(self, shape: tuple[int, int]) -> tuple[int, int]:
        """Return the row and the column of the matrix before which the window ends."""
        return (
            min(shape[0], self.first_row + self.cell_rows * self.step),
            min(shape[1], self.first_col + self.cell_cols * self.step),
        )


def sampled_rows_per_cell(layer: MaskedLayer, window: Window) -> int:
    """Return the number of rows read of each whole cell: all in a small window, evenly spaced ones in a large one."""
    last_row, last_col = window.stops(layer.shape)
    width = layer.width_to_read(last_col - window.first_col)
    # A part of a row takes as long as at least `NARROW_WIDTH` entries, because it is read on its own.
    counted_width = width if width == layer.shape[1] else max(width, NARROW_WIDTH)
    if (last_row - window.first_row) * counted_width <= SAMPLED_ENTRIES:
        return window.step
    # A sampled row is read on its own, too, even if it is whole.
    entries_per_row_of_cells = window.cell_rows * max(width, NARROW_WIDTH)
    return min(window.step, max(1, SAMPLED_ENTRIES // entries_per_row_of_cells))


def rows_per_band(width: int, entry_bytes: int) -> int:
    """Return how many rows are read at once, if `width` entries of a row are read."""
    return max(1, min(BAND_ROWS, BAND_BYTES // (entry_bytes * width)))


def read_window(layer: MaskedLayer, store: BlobStore, window: Window) -> dict[str, Floats]:
    """Read a window's cells.

    Returns:
        `kept`: share of each cell's entries that the mask keeps, in [0, 1]; `scores`: mean score of all entries of the
        cell; `kept_scores`: mean score of its kept entries, 0 where none is kept. All are computed from sampled rows.
    """
    start, stop = window.first_col, window.stops(layer.shape)[1]
    cell_starts = np.arange(0, stop - start, window.step)
    cell_widths = np.diff(np.append(cell_starts, stop - start))
    rows = _sampled_rows(window, layer.shape[0], sampled_rows_per_cell(layer, window))
    row_counts = np.zeros(window.cell_rows)
    # Kept entries, sum of the scores, sum of the kept scores. In float64, since a sum may exceed the largest float32.
    kept, scores_sum, kept_scores_sum = sums = np.zeros((3, window.cell_rows, window.cell_cols))
    band_rows = rows_per_band(layer.width_to_read(stop - start), 4)
    for first in range(0, len(rows), band_rows):
        band = rows[first : first + band_rows]
        mask = layer.read_mask(store, band, start, stop)
        scores = layer.read_scores(store, band, start, stop)
        rows_of_cells, first_indices, counts = _cell_rows(band, window)
        row_counts[rows_of_cells] += counts
        for total, values in zip(sums, (mask, scores, np.where(mask, scores, np.float32(0))), strict=True):
            row_sums = np.add.reduceat(values, first_indices, axis=0, dtype=np.float64)
            total[rows_of_cells] += np.add.reduceat(row_sums, cell_starts, axis=1)
    entries = row_counts[:, None] * cell_widths
    kept_means = np.divide(kept_scores_sum, kept, out=np.zeros_like(kept), where=kept > 0)
    means = {"kept": kept / entries, "scores": scores_sum / entries, "kept_scores": kept_means}
    return {name: values.astype(np.float32) for name, values in means.items()}


def read_profile(layer: MaskedLayer, store: BlobStore) -> dict[str, npt.NDArray[np.generic]]:
    """Count the kept entries of each row and each column, and compute quantiles and histograms of sampled scores.

    Returns:
        `row_kept` and `col_kept`: number of kept entries in each row and in each column. Of the sample, which is up to
        64 evenly spaced rows: `quantiles`: 101 quantiles of the scores, for colour scales; `edges`: 61 limits of the
        bins of the histograms; `kept_counts` and `dropped_counts`: number of kept and of dropped entries in each bin.
    """
    height, width = layer.shape
    row_kept, col_kept = np.zeros(height, np.int32), np.zeros(width, np.int32)
    step = rows_per_band(width, 1)
    for start in range(0, height, step):
        mask = layer.read_mask(store, range(start, min(height, start + step)), 0, width)
        row_kept[start : start + step] = np.count_nonzero(mask, axis=1)
        col_kept += np.count_nonzero(mask, axis=0).astype(np.int32)
    return {"row_kept": row_kept, "col_kept": col_kept, **_distributions(layer, store)}


def _distributions(layer: MaskedLayer, store: BlobStore) -> dict[str, npt.NDArray[np.generic]]:
    height, width = layer.shape
    count = max(1, min(height, SAMPLED_ROWS, BAND_BYTES // (4 * width)))
    rows = [number * height // count for number in range(count)]
    scores, mask = layer.read_scores(store, rows, 0, width), layer.read_mask(store, rows, 0, width)
    edges = np.linspace(0, float(scores.max()) or 1.0, HISTOGRAM_BINS + 1).astype(np.float32)
    counts = [np.histogram(scores[selected], edges)[0].astype(np.int32) for selected in (mask, ~mask)]
    return {
        "quantiles": np.quantile(scores, np.linspace(0, 1, 101)).astype(np.float32),
        "edges": edges,
        "kept_counts": counts[0],
        "dropped_counts": counts[1],
    }


def _sampled_rows(window: Window, matrix_height: int, sampled_rows: int) -> Sequence[int]:
    """Return the matrix rows that are read for a window: all, as a range, or `sampled_rows` of each whole cell."""
    if sampled_rows == window.step:
        return range(window.first_row, min(matrix_height, window.first_row + window.cell_rows * window.step))
    return [
        row
        for cell_row in range(window.cell_rows)
        for row in _sampled_rows_of_cell(window, cell_row, matrix_height, sampled_rows)
    ]


def _sampled_rows_of_cell(window: Window, cell_row: int, matrix_height: int, sampled_rows: int) -> list[int]:
    first = window.first_row + cell_row * window.step
    length = min(window.step, matrix_height - first)
    count = min(sampled_rows, length)
    return [first + number * length // count for number in range(count)]


def _cell_rows(
    band: Sequence[int], window: Window
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Return the rows of cells that a band of matrix rows is in.

    Returns:
        The rows of cells, ascending; the index, in the band, of the first matrix row of each; and the number of matrix
        rows of each.
    """
    matrix_rows = np.arange(band.start, band.stop) if isinstance(band, range) else np.asarray(band)
    return np.unique((matrix_rows - window.first_row) // window.step, return_index=True, return_counts=True)
