"""Computes windows and profiles of a layer in bounded memory, for layers of any size."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from masksmith_state.blobs.store import BlobStore

from .reader import Floats, MaskedLayer

MAX_SIDE = 1024
MAX_CELLS = 2**18
BAND_BYTES = 8 * 2**20
"""Bytes of scores that are in memory at a time."""
SAMPLED_ENTRIES = 2**24
"""Entries of a window that are read at most, unless one row of each cell has more."""
SAMPLED_ROWS = 64
"""Rows of a profile whose scores are read."""
HISTOGRAM_BINS = 60


@dataclass(frozen=True)
class Window:
    """A rectangle of cells, each `step` x `step` entries of the matrix.

    Attributes:
        row, col: First row and column of the matrix.
        rows, cols: Number of cells vertically and horizontally; fewer if the matrix ends.
        step: Entries along a cell's side.
    """

    row: int
    col: int
    rows: int
    cols: int
    step: int = 1

    def clipped(self, shape: tuple[int, int]) -> Window:
        """Copy that ends where the matrix ends."""
        down, across = (
            max(0, -(-(length - first) // self.step)) for length, first in zip(shape, (self.row, self.col), strict=True)
        )
        return Window(self.row, self.col, min(self.rows, down), min(self.cols, across), self.step)

    @property
    def sampled(self) -> int:
        """Number of rows read of each cell: all rows in a small window, evenly spaced rows in a large one."""
        width = max(1, self.rows * self.cols * self.step)
        return min(self.step, max(1, SAMPLED_ENTRIES // width))


def read_window(layer: MaskedLayer, store: BlobStore, window: Window) -> dict[str, Floats]:
    """Read a window's cells.

    Returns:
        `kept`: share of each cell's entries that the mask keeps, in [0, 1]; `scores`: their mean score; `kept_scores`:
        the mean over those kept, 0 where none is. Entries are those of the rows sampled.
    """
    height, width = layer.shape
    last = min(width, window.col + window.cols * window.step)
    edges = np.arange(0, last - window.col, window.step)
    counts = np.diff(np.append(edges, last - window.col)).astype(np.float32)
    planes = {name: np.zeros((window.rows, window.cols), np.float32) for name in ("kept", "scores", "kept_scores")}
    for cells, rows in _bands(window, height, last - window.col):
        mask = layer.kept(store, rows, window.col, last)
        scores = layer.scores(store, rows, window.col, last)
        kept_share, mean_score, mean_kept = (
            np.add.reduceat(_by_cell(plane, cells, rows, window), edges, axis=1) / counts
            for plane in (mask.astype(np.float32), scores, np.where(mask, scores, np.float32(0)))
        )
        planes["kept"][cells], planes["scores"][cells] = kept_share, mean_score
        planes["kept_scores"][cells] = np.divide(
            mean_kept, kept_share, out=np.zeros_like(mean_kept), where=kept_share > 0
        )
    return planes


def read_profile(layer: MaskedLayer, store: BlobStore) -> dict[str, npt.NDArray[np.generic]]:
    """Read the kept entries of all rows and columns, and quantiles of the scores.

    Returns:
        `row_kept` and `col_kept`: entries kept of each row and column; of up to 64 evenly spaced rows, `quantiles`: 101
        quantiles of the scores, for colour scales, and `kept_counts` and `dropped_counts`: numbers of kept and dropped
        entries whose scores are between two neighbours of the 61 `edges`.
    """
    height, width = layer.shape
    row_kept, col_kept = np.zeros(height, np.int32), np.zeros(width, np.int32)
    step = max(1, BAND_BYTES // width)
    for first in range(0, height, step):
        mask = layer.kept(store, range(first, min(height, first + step)), 0, width)
        row_kept[first : first + step] = np.count_nonzero(mask, axis=1)
        col_kept += np.count_nonzero(mask, axis=0).astype(np.int32)
    return {"row_kept": row_kept, "col_kept": col_kept, **_distributions(layer, store)}


def _distributions(layer: MaskedLayer, store: BlobStore) -> dict[str, npt.NDArray[np.generic]]:
    height, width = layer.shape
    count = max(1, min(height, SAMPLED_ROWS, BAND_BYTES // (4 * width)))
    rows = [number * height // count for number in range(count)]
    scores, kept = layer.scores(store, rows, 0, width), layer.kept(store, rows, 0, width)
    edges = np.linspace(0, float(scores.max()) or 1.0, HISTOGRAM_BINS + 1).astype(np.float32)
    counts = [np.histogram(scores[each], edges)[0].astype(np.int32) for each in (kept, ~kept)]
    return {
        "quantiles": np.quantile(scores, np.linspace(0, 1, 101)).astype(np.float32),
        "edges": edges,
        "kept_counts": counts[0],
        "dropped_counts": counts[1],
    }


def _bands(window: Window, height: int, width: int) -> Iterator[tuple[slice, list[int]]]:
    """Yield bands of cell rows with the matrix rows that are read for them, of at most `BAND_BYTES`."""
    cell_rows = max(1, BAND_BYTES // (4 * width * window.sampled))
    for first in range(0, window.rows, cell_rows):
        last = min(window.rows, first + cell_rows)
        yield slice(first, last), [row for cell in range(first, last) for row in _rows(window, cell, height)]


def _rows(window: Window, cell: int, height: int) -> list[int]:
    first = window.row + cell * window.step
    length = min(window.step, height - first)
    count = min(window.sampled, length)
    return [first + number * length // count for number in range(count)]


def _by_cell(plane: Floats, cells: slice, rows: Sequence[int], window: Window) -> Floats:
    """Average the rows of each cell."""
    cell_of_row = (np.asarray(rows) - window.row) // window.step - cells.start
    starts = np.searchsorted(cell_of_row, np.arange(cells.stop - cells.start))
    sums = np.add.reduceat(plane, starts, axis=0)
    counts = np.bincount(cell_of_row).astype(np.float32)[:, None]
    return np.asarray(sums / counts, np.float32)
