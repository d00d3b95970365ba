"""Device functions that the passes share: largest score of a tile, sweeps, and the check of budgets after sweeps."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

from masksmith.cuda.elements import reader
from masksmith.cuda.jit import cuda, device

from .lines import pair
from .shape import Shape
from .thread_arithmetic import is_balanced, threshold_update


@cache
def compile_row_peak(element: str) -> Any:
    """Compile a function that returns the largest score of one row of a tile; 0 for a row outside of the scores.

    The function skips NaN, infinite and negative scores, and lowers `invalid[0]` to the smallest of their flat indices.
    """
    read = reader(element)

    def largest(scores: Any, i: int, left: int, cols: int, invalid: Any) -> float:
        peak, width = 0.0, scores.shape[1]
        for j in range(left, min(left + cols, width) if i < scores.shape[0] else left):
            w = read(scores, i, j)
            if w >= 0.0 and w < math.inf:
                peak = max(peak, float(w))
            else:
                cuda.atomic.min(invalid, 0, i * width + j)
        return peak

    return device(largest)


@device
def tile_peak(peaks: Any, lane: int, lanes: int, rows: int) -> float:
    """Return the largest of a tile's row peaks."""
    peak = 0.0
    for i in range(rows):
        peak = max(peak, peaks[i * lanes + lane])
    return peak


@cache
def compile_sweeps(shape: Shape) -> Any:
    """Compile a function that runs the sweeps: they update the duals of rows `u` and of columns `v` in turn.

    Row duals are updated `sweeps + 1` times, first and last; column duals `sweeps` times, over-relaxed except the first
    and the last time. Each thread updates one row and one column of one tile, if the tile has them.
    """
    lanes, pitch, rows, cols = shape.lanes, shape.pitch, shape.rows, shape.cols
    row_size, col_size, row_keep, col_keep = shape.row_size, shape.col_size, shape.row_keep, shape.col_keep

    def descend(x: Any, u: Any, v: Any, row_floor: int, col_floor: int, sweeps: int, lane: int, line: int) -> None:
        here, row = line * lanes + lane, line * pitch * lanes + lane
        for sweep in range(sweeps + 1):
            if line < rows:
                high, low = pair(x, row, lanes, v, lane, lanes, row_size, row_keep)
                u[here] = threshold_update(high, low, u[here], row_floor, 0)
            cuda.syncthreads()
            if sweep < sweeps:
                if line < cols:
                    high, low = pair(x, here, pitch * lanes, u, lane, lanes, col_size, col_keep)
                    over_relaxation_mask = 0 if sweep == 0 or sweep == sweeps - 1 else -1
                    v[here] = threshold_update(high, low, v[here], col_floor, over_relaxation_mask)
                cuda.syncthreads()

    return device(descend)


@cache
def compile_row_check(shape: Shape) -> Any:
    """Compile a function that returns `is_balanced` for a thread's row; True for a thread without a row."""
    lanes, pitch, rows, size, keep = shape.lanes, shape.pitch, shape.rows, shape.row_size, shape.row_keep

    def check(x: Any, u: Any, v: Any, floor: int, lane: int, line: int) -> bool:
        first = line * pitch * lanes + lane
        return line >= rows or is_balanced(x, first, lanes, v, lane, lanes, size, u[line * lanes + lane], floor, keep)

    return device(check)


@cache
def compile_col_check(shape: Shape) -> Any:
    """Compile a function that returns `is_balanced` for a thread's column; True for a thread without a column."""
    lanes, step, cols, size, keep = shape.lanes, shape.pitch * shape.lanes, shape.cols, shape.col_size, shape.col_keep

    def check(x: Any, u: Any, v: Any, floor: int, lane: int, line: int) -> bool:
        first = line * lanes + lane
        return line >= cols or is_balanced(x, first, step, u, lane, lanes, size, v[first], floor, keep)

    return device(check)
