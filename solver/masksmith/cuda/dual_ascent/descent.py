"""What the kernels of waves share: a tile's largest score, the sweeps, and whether budgets hold afterwards."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

from masksmith.cuda.elements import reader
from masksmith.cuda.jit import cuda, device

from .lines import pair
from .shape import Shape
from .thread_block import fits, middle


@cache
def row_peak(element: str) -> Any:
    """Make the function that gives the largest score of one row of a tile, and notes the first that is none."""
    read = reader(element)

    def largest(scores: Any, i: int, edge: int, cols: int, bad: Any) -> float:
        peak, width = 0.0, scores.shape[1]
        for j in range(edge, min(edge + cols, width) if i < scores.shape[0] else edge):
            w = read(scores, i, j)
            if w >= 0.0 and w < math.inf:
                peak = max(peak, float(w))
            else:
                cuda.atomic.min(bad, 0, i * width + j)
        return peak

    return device(largest)


@device
def tile_peak(peaks: Any, lane: int, lanes: int, rows: int) -> float:
    """Give the largest of a tile's row peaks."""
    peak = 0.0
    for i in range(rows):
        peak = max(peak, peaks[i * lanes + lane])
    return peak


@cache
def descent(shape: Shape) -> Any:
    """Make the sweeps: rows and columns in turn, rows last; every thread moves one row and one column of its tile."""
    lanes, pitch, rows, cols = shape.lanes, shape.pitch, shape.rows, shape.cols
    row_size, col_size, row_keep, col_keep = shape.row_size, shape.col_size, shape.row_keep, shape.col_keep

    def descend(x: Any, u: Any, v: Any, row_floor: int, col_floor: int, sweeps: int, lane: int, line: int) -> None:
        here, row = line * lanes + lane, line * pitch * lanes + lane
        for sweep in range(sweeps + 1):
            if line < rows:
                high, low = pair(x, row, lanes, v, lane, lanes, row_size, row_keep)
                u[here] = middle(high, low, u[here], row_floor, 0)
            cuda.syncthreads()
            if sweep < sweeps:
                if line < cols:
                    high, low = pair(x, here, pitch * lanes, u, lane, lanes, col_size, col_keep)
                    relax = 0 if sweep == 0 or sweep == sweeps - 1 else -1
                    v[here] = middle(high, low, v[here], col_floor, relax)
                cuda.syncthreads()

    return device(descend)


@cache
def row_fits(shape: Shape) -> Any:
    """Make the check of a thread's row."""
    lanes, pitch, rows, size, keep = shape.lanes, shape.pitch, shape.rows, shape.row_size, shape.row_keep

    def check(x: Any, u: Any, v: Any, floor: int, lane: int, line: int) -> bool:
        first = line * pitch * lanes + lane
        return line >= rows or fits(x, first, lanes, v, lane, lanes, size, u[line * lanes + lane], floor, keep)

    return device(check)


@cache
def col_fits(shape: Shape) -> Any:
    """Make the check of a thread's column."""
    lanes, step, cols, size, keep = shape.lanes, shape.pitch * shape.lanes, shape.cols, shape.col_size, shape.col_keep

    def check(x: Any, u: Any, v: Any, floor: int, lane: int, line: int) -> bool:
        first = line * lanes + lane
        return line >= cols or fits(x, first, step, u, lane, lanes, size, v[first], floor, keep)

    return device(check)
