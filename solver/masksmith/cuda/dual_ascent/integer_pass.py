"""Integer pass of dual coordinate ascent: all sweeps for the tiles listed in `order`, in shared memory, in one launch.

The arithmetic is that of `kernels.dual_ascent.integer_pass`: the same integers, thresholds and sweeps. Indices of
unsolved tiles are written to a second list for the next pass, so the host need not wait between passes.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np

from masksmith.cuda.elements import reader
from masksmith.cuda.jit import cuda, device, kernel, wrap_int32
from masksmith.kernels.dual_ascent.integer_pass import NO_FLOOR, PAD

from .descent import compile_col_check, compile_row_check, compile_row_peak, compile_sweeps, tile_peak
from .shape import Shape
from .thread_arithmetic import equalise_minima, exponent_of, quantise_dual, unit_of


@cache
def _row_loader(shape: Shape) -> Any:
    """Compile a function that writes one row of a tile, quantised to integers and padded, to shared memory."""
    read, real = reader(shape.element), np.float64 if shape.element == "float64" else np.float32
    rows, cols, row_size, col_size = shape.rows, shape.cols, shape.row_size, shape.col_size
    lanes, pitch = shape.lanes, shape.pitch

    def load(scores: Any, top: int, left: int, exponent: int, x: Any, lane: int, line: int) -> None:
        # Scaled in two steps, since `2^exponent` may be out of range even if the product is not.
        half, i = exponent // 2, top + line
        scale, rescale = real(math.ldexp(1.0, int(half))), real(math.ldexp(1.0, int(exponent - half)))
        for j in range(row_size if line < col_size else 0):
            value = PAD
            if line < rows and j < cols:
                value = 0
                if i < scores.shape[0] and left + j < scores.shape[1]:
                    value = np.int32(real(real(read(scores, i, left + j)) * scale) * rescale)
            x[(line * pitch + j) * lanes + lane] = value

    return device(load)


@cache
def compile_integer_pass(shape: Shape) -> Any:
    """Compile the pass; launch it with one block of `(lanes, lines)` threads for every `lanes` tiles.

    Arguments of the kernel (arrays are on the device; `count` and `unsolved_count` are arrays of one number, so that
    the next pass reads it on the device):

        scores: `[height, width]`; entries of tiles beyond it count as zeros.
        across: Tiles per tile row.
        sweeps: Number of sweeps.
        warm: Whether sweeps start from `col_duals` instead of 0.
        non_negative: Whether duals are kept non-negative. Otherwise rows and columns are filled exactly, and duals of
            at-most budgets are shifted after the sweeps.
        order, count: Indices of the tiles to solve, `order[: count[0]]`.
        unsolved, unsolved_count: Indices of tiles that stay unsolved, appended to `unsolved[: unsolved_count[0]]`.
        mask: `[down * rows, across * cols]` uint8, written; `down` is the number of tile rows.
        row_duals, col_duals: `[down * across, rows]` and `[down * across, cols]` float64, written; `col_duals` is read
            first if `warm`.
        invalid: `invalid[0]` is lowered to the flat index of the first NaN, infinite or negative score.
    """
    peak_of, load, run_sweeps = compile_row_peak(shape.element), _row_loader(shape), compile_sweeps(shape)
    row_balanced, col_balanced = compile_row_check(shape), compile_col_check(shape)
    lanes, pitch, places, threads = shape.lanes, shape.pitch, shape.places * shape.lanes, shape.lanes * shape.lines
    rows, cols, at_most, int32, float64 = shape.rows, shape.cols, shape.at_most, cuda.types.int32, cuda.types.float64

    def run(
        scores: Any, across: int, sweeps: int, warm: bool, non_negative: bool, order: Any, count: Any, unsolved: Any,
        unsolved_count: Any, mask: Any, row_duals: Any, col_duals: Any, invalid: Any,
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
        # In the last block, threads without a tile of their own repeat the last tile, and write nothing.
        t, here = order[min(first + lane, count[0] - 1)], line * lanes + lane
        top, left = (t // across) * rows, (t % across) * cols

        peaks[here] = peak_of(scores, top + line, left, cols, invalid) if line < rows else 0.0
        cuda.syncthreads()
        if line == 0:
            exponents[lane] = exponent_of(tile_peak(peaks, lane, lanes, rows))
            solved[lane] = unit_of(exponents[lane]) > 0.0
        cuda.syncthreads()
        unit, floor = unit_of(exponents[lane]), 0 if non_negative else NO_FLOOR
        load(scores, top, left, exponents[lane], x, lane, line)
        u[here] = 0
        v[here] = quantise_dual(col_duals[t, line], unit, non_negative) if warm and line < cols else 0
        cuda.syncthreads()

        run_sweeps(x, u, v, floor, floor, sweeps, lane, line)
        if not col_balanced(x, u, v, floor, lane, line) or (
            non_negative and not row_balanced(x, u, v, floor, lane, line)
        ):
            solved[lane] = 0
        cuda.syncthreads()
        if at_most and not non_negative and line == 0 and not equalise_minima(u, v, lane, lanes, rows, cols):
            solved[lane] = 0
        cuda.syncthreads()

        if first + lane >= count[0]:
            return
        if line < rows:
            for j in range(cols):
                rest = wrap_int32(x[(line * pitch + j) * lanes + lane] - v[j * lanes + lane])
                mask[top + line, left + j] = rest >= u[here]
            row_duals[t, line] = u[here] * unit
        if line < cols:
            col_duals[t, line] = v[here] * unit
        if line == 0 and not solved[lane]:
            unsolved[cuda.atomic.add(unsolved_count, 0, 1)] = t

    return kernel(run)
