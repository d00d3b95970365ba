"""Computes windows and profiles of a layer; only a part of the layer is in memory at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from masksmith_state.blobs.store import BlobStore

from .reader import Floats, MaskedLayer

MAX_SIDE = 1024
"""Maximum number of cells along a side of a window."""
MAX_CELLS = 2**18
"""Maximum number of cells of a window."""
BAND_BYTES = 8 * 2**20
"""Maximum bytes of scores, or of a mask, that are read at once; a single row, of entries or of cells, may be larger."""
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


def sampled_rows_per_cell(layer: MaskedLayer, window: Window) -> int:
    """Return the number of rows read of each whole cell: all in a small window, evenly spaced ones in a large one."""
    # Entries that are read if one row of each cell is read.
    entries = window.cell_rows * layer.width_to_read(window.cell_cols * window.step)
    return min(window.step, max(1, SAMPLED_ENTRIES // entries))


def read_window(layer: MaskedLayer, store: BlobStore, window: Window) -> dict[str, Floats]:
    """Read a window's cells.

    Returns:
        `kept`: share of each cell's entries that the mask keeps, in [0, 1]; `scores`: mean score of all entries of the
        cell; `kept_scores`: mean score of its kept entries, 0 where none is kept. Entries are those of sampled rows.
    """
    height, width = layer.shape
    start, stop = window.first_col, min(width, window.first_col + window.cell_cols * window.step)
    cell_starts = np.arange(0, stop - start, window.step)
    cell_widths = np.diff(np.append(cell_starts, stop - start)).astype(np.float32)
    shape = (window.cell_rows, window.cell_cols)
    results = {name: np.zeros(shape, np.float32) for name in ("kept", "scores", "kept_scores")}
    width_to_read = layer.width_to_read(stop - start)
    for band, rows in _bands(window, height, width_to_read, sampled_rows_per_cell(layer, window)):
        mask = layer.read_mask(store, rows, start, stop)
        scores = layer.read_scores(store, rows, start, stop)
        # The mean masked score counts dropped entries as 0; divided by the share kept it is the mean of those kept.
        kept_share, mean_score, mean_masked_score = (
            _average_cols(_average_rows(values, band, rows, window), cell_starts, cell_widths)
            for values in (mask.astype(np.float32), scores, np.where(mask, scores, np.float32(0)))
        )
        results["kept"][band], results["scores"][band] = kept_share, mean_score
        results["kept_scores"][band] = np.divide(
            mean_masked_score, kept_share, out=np.zeros_like(kept_share), where=kept_share > 0
        )
    return results


def read_profile(layer: MaskedLayer, store: BlobStore) -> dict[str, npt.NDArray[np.generic]]:
    """Count the kept entries of each row and each column, and compute quantiles and histograms of sampled scores.

    Returns:
        `row_kept` and `col_kept`: number of kept entries in each row and in each column. Of the sample, which is up to
        64 evenly spaced rows: `quantiles`: 101 quantiles of the scores, for colour scales; `edges`: 61 limits of the
        bins of the histograms; `kept_counts` and `dropped_counts`: number of kept and of dropped entries in each bin.
    """
    height, width = layer.shape
    row_kept, col_kept = np.zeros(height, np.int32), np.zeros(width, np.int32)
    step = max(1, BAND_BYTES // width)
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


def _bands(
    window: Window, matrix_height: int, width_to_read: int, sampled_rows: int
) -> Iterator[tuple[slice, list[int]]]:
    """Yield the bands of a window: a range of its rows of cells, and the matrix rows that are read for these cells.

    The scores that are read for a band have at most `BAND_BYTES`, unless it is a single row of cells.

    Args:
        window: The window.
        matrix_height: Number of rows of the matrix.
        width_to_read: Number of entries that are read of each row.
        sampled_rows: Number of rows that are read of each whole cell.
    """
    band_height = max(1, BAND_BYTES // (4 * width_to_read * sampled_rows))
    for start in range(0, window.cell_rows, band_height):
        stop = min(window.cell_rows, start + band_height)
        rows = [row for cell_row in range(start, stop) for row in _rows(window, cell_row, matrix_height, sampled_rows)]
        yield slice(start, stop), rows


def _rows(window: Window, cell_row: int, matrix_height: int, sampled_rows: int) -> list[int]:
    """Return the matrix rows that are read for a row of cells."""
    first = window.first_row + cell_row * window.step
    length = min(window.step, matrix_height - first)
    count = min(sampled_rows, length)
    return [first + number * length // count for number in range(count)]


def _average_rows(values: Floats, band: slice, rows: Sequence[int], window: Window) -> Floats:
    """Average, in each column, the sampled rows of each row of cells.

    Args:
        values: One value for each entry of the sampled rows.
        band: Range of the rows of cells.
        rows: The sampled rows, as rows of the matrix.
        window: The window.
    """
    cell_row_of_row = (np.asarray(rows) - window.first_row) // window.step - band.start
    starts = np.searchsorted(cell_row_of_row, np.arange(band.stop - band.start))
    # In float64, since a sum of scores may exceed the largest float32.
    sums = np.add.reduceat(values, starts, axis=0, dtype=np.float64)
    counts = np.bincount(cell_row_of_row)[:, None]
    return np.asarray(sums / counts, np.float32)


def _average_cols(values: Floats, cell_starts: npt.NDArray[np.intp], cell_widths: Floats) -> Floats:
    """Average, in each row, the columns of each cell; `cell_starts` are the first columns of the cells."""
    sums = np.add.reduceat(values, cell_starts, axis=1, dtype=np.float64)
    return np.asarray(sums / cell_widths, np.float32)
