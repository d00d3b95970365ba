"""One launch, one wave: sweeps for every tile that an order lists, in shared memory from first to last.

The arithmetic is that of `kernels.dual_ascent.integer_pass`, number for number: the same integers, the same half-way
thresholds, the same sweeps. Tiles that are not solved are handed to the next wave through an order of their own, so
the host need not look.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np

from masksmith.cuda.elements import reader
from masksmith.cuda.jit import cuda, device, kernel, narrow
from masksmith.kernels.dual_ascent.integer_pass import NO_FLOOR, PAD

from .descent import col_fits, descent, row_fits, row_peak, tile_peak
from .shape import Shape
from .thread_block import exponent_of, shift, start_price, unit_of


@cache
def _row_loader(shape: Shape) -> Any:
    """Make the function that writes one row of a tile as integers, and pads it."""
    read, single = reader(shape.element), np.float64 if shape.element == "float64" else np.float32
    rows, cols, row_size, col_size = shape.rows, shape.cols, shape.row_size, shape.col_size
    lanes, pitch = shape.lanes, shape.pitch

    def load(scores: Any, top: int, edge: int, exponent: int, x: Any, lane: int, line: int) -> None:
        # In two steps: one power of two could be out of range where the product is not.
        half, i = exponent // 2, top + line
        scale, rescale = single(math.ldexp(1.0, int(half))), single(math.ldexp(1.0, int(exponent - half)))
        for j in range(row_size if line < col_size else 0):
            value = PAD
            if line < rows and j < cols:
                value = 0
                if i < scores.shape[0] and edge + j < scores.shape[1]:
                    value = np.int32(single(single(read(scores, i, edge + j)) * scale) * rescale)
            x[(line * pitch + j) * lanes + lane] = value

    return device(load)


@cache
def wave(shape: Shape) -> Any:
    """Make the kernel of a wave; launch it with blocks of `(lanes, lines)` threads, one for every `lanes` tiles."""
    peak_of, load, descend = row_peak(shape.element), _row_loader(shape), descent(shape)
    row_right, col_right = row_fits(shape), col_fits(shape)
    lanes, pitch, places, threads = shape.lanes, shape.pitch, shape.places * shape.lanes, shape.lanes * shape.lines
    rows, cols, at_most, int32, float64 = shape.rows, shape.cols, shape.at_most, cuda.types.int32, cuda.types.float64

    def run(
        scores: Any, across: int, sweeps: int, warm: bool, limited: bool, order: Any, count: Any, later: Any,
        left: Any, mask: Any, row_duals: Any, col_duals: Any, bad: Any,
    ) -> None:  # fmt: skip
        lane, line, first = cuda.threadIdx.x, cuda.threadIdx.y, cuda.blockIdx.x * lanes
        if first >= count[0]:
            return
        x = cuda.shared.array(places, int32)
        u = cuda.shared.array(threads, int32)
        v = cuda.shared.array(threads, int32)
        peaks = cuda.shared.array(threads, float64)
        exponents = cuda.shared.array(lanes, int32)
        solved = cuda.shared.array(lanes, int32)
        t, here = order[min(first + lane, count[0] - 1)], line * lanes + lane
        top, edge = (t // across) * rows, (t % across) * cols

        peaks[here] = peak_of(scores, top + line, edge, cols, bad) if line < rows else 0.0
        cuda.syncthreads()
        if line == 0:
            exponents[lane] = exponent_of(tile_peak(peaks, lane, lanes, rows))
            solved[lane] = unit_of(exponents[lane]) > 0.0
        cuda.syncthreads()
        unit, floor = unit_of(exponents[lane]), 0 if limited else NO_FLOOR
        load(scores, top, edge, exponents[lane], x, lane, line)
        u[here] = 0
        v[here] = start_price(col_duals[t, line], unit, limited) if warm and line < cols else 0
        cuda.syncthreads()

        descend(x, u, v, floor, floor, sweeps, lane, line)
        if not col_right(x, u, v, floor, lane, line) or (limited and not row_right(x, u, v, floor, lane, line)):
            solved[lane] = 0
        cuda.syncthreads()
        if at_most and not limited and line == 0 and not shift(u, v, lane, lanes, rows, cols):
            solved[lane] = 0
        cuda.syncthreads()

        if first + lane >= count[0]:
            return
        if line < rows:
            for j in range(cols):
                rest = narrow(x[(line * pitch + j) * lanes + lane] - v[j * lanes + lane])
                mask[top + line, edge + j] = rest >= u[here]
            row_duals[t, line] = u[here] * unit
        if line < cols:
            col_duals[t, line] = v[here] * unit
        if line == 0 and not solved[lane]:
            later[cuda.atomic.add(left, 0, 1)] = t

    return kernel(run)
