"""Tie pass of dual coordinate ascent in one launch; the arithmetic is that of `kernels.dual_ascent.tie_pass`.

Residual scores `w - u - v` are expressed in a finer unit; noise breaks ties; sweeps solve the perturbed tile; then the
noise is removed and duals are lowered until none changes (Bellman-Ford), or for the maximum number of rounds.

In shared memory, an entry's word holds its perturbed residual score during sweeps. Afterwards it holds the entry's
bound on duals, which is even, with the lowest bit set if the entry is kept.

With at-most budgets, an outer node absorbs the unused budgets of rows and columns (see `kernels.tile`); `outer` holds
its dual for each tile.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np

from masksmith.cuda.elements import reader
from masksmith.cuda.jit import cuda, device, kernel, wrap_int32
from masksmith.kernels.dual_ascent.fine_units import CLIP, UNBOUNDED
from masksmith.kernels.dual_ascent.integer_pass import NO_FLOOR, PAD
from masksmith.kernels.dual_ascent.simd.lanes import SCORE_BITS

from .at_most import count_used, is_valid_dual, lower_outer_dual, shift_duals, used_or_full
from .descent import compile_col_check, compile_row_check, compile_row_peak, compile_sweeps, tile_peak
from .shape import Shape
from .thread_arithmetic import nearest

EVEN = np.int32(-2)
"""Mask that clears the lowest bit of a word."""


@device
def _exponent(peak: float, zoom: int) -> int:
    """Return e for the unit 2^-e, `zoom` bits finer than the unit of the integer pass; `peak` is the largest score."""
    return min(SCORE_BITS - math.frexp(peak)[1] + zoom, 1000) if peak > 0.0 else 0


@device
def _fine_unit(exponent: int) -> float:
    """Return the unit `2^-exponent`; 0 if it is 2^900 or more, since such scores are too large for this pass."""
    return math.ldexp(1.0, -int(exponent)) if exponent > -900 else 0.0


@device
def _round_to_even(dual: float, unit: float) -> float:
    """Round a dual to an even multiple of the unit, so that even steps can bring it to exactly 0; 0 if `unit` is 0."""
    return 2.0 * unit * nearest(0.5 * dual / unit) if unit > 0.0 else 0.0


@device
def _floor_of(dual: float, unit: float, non_negative: bool) -> int:
    """Return the least allowed change of a dual, in units: the change to 0 if `non_negative`, else `NO_FLOOR`."""
    if non_negative and unit > 0.0:
        return np.int32(max(-dual / unit, float(-(1 << 28))))
    return np.int32(NO_FLOOR)


@device
def _residual_score(w: float, u: float, v: float, factor: float) -> int:
    """Return `2 x` if x is an integer, else the odd integer `2 floor(x) + 1`; x is `(w - v - u) * factor`, clipped."""
    rest = min(max(((w - v) - u) * factor, -CLIP), CLIP)
    whole = np.int32(rest)
    below, odd = np.int32(rest < whole), np.int32(rest != whole)
    return wrap_int32(wrap_int32(wrap_int32(whole - below) << 1) | odd)


@device
def _bound_of(score: int, kept: bool) -> int:
    """Encode an entry's bound on duals: `u <= bound - v` if kept, `-v <= bound + u` if dropped."""
    if kept:
        return wrap_int32((score & EVEN) | 1)
    return wrap_int32(-(wrap_int32(score + 1) & EVEN))


@device
def _lowered_dual(
    x: Any, first: int, step: int, others: Any, lane: int, lanes: int, count: int, own: int, kept: int
) -> int:  # fmt: skip
    """Return a line's dual `own`, lowered to the least bound of its entries that are kept (`kept` 1) or dropped (0)."""
    for p in range(count):
        word = x[first + p * step]
        bound = word & EVEN if word & np.int32(1) == kept else np.int32(UNBOUNDED)
        own = min(own, wrap_int32(bound + others[p * lanes + lane]))
    return own


@device
def _proves(w: float, u: float, v: float, kept: int) -> bool:
    """Return whether `u + v` is exact in float64, and at most `w` if the entry is kept, at least `w` if dropped."""
    total = u + v
    part = total - u
    error = (u - (total - part)) + (v - part)
    return error == 0.0 and (w >= total if kept else w <= total)


@cache
def _row_loader(shape: Shape) -> Any:
    """Compile a function that writes the perturbed residual scores of one row of a tile, padded."""
    read, rows, cols, lanes, pitch = reader(shape.element), shape.rows, shape.cols, shape.lanes, shape.pitch
    row_size, col_size = shape.row_size, shape.col_size

    def load(
        scores: Any, top: int, left: int, factor: float, u: Any, v: Any, noise: Any, x: Any, lane: int, line: int
    ) -> None:  # fmt: skip
        i = top + line
        for j in range(row_size if line < col_size else 0):
            value = np.int32(PAD)
            if line < rows and j < cols:
                inside = i < scores.shape[0] and left + j < scores.shape[1]
                w = float(read(scores, i, left + j)) if inside else 0.0
                rest = _residual_score(w, u[line * lanes + lane], v[j * lanes + lane], factor)
                value = wrap_int32(rest + noise[line * row_size + j])
            x[(line * pitch + j) * lanes + lane] = value

    return device(load)


@cache
def _compile_bounds(shape: Shape) -> Any:
    """Compile a function that fixes a row's mask, and replaces its residual scores by bounds, without the noise."""
    rows, cols, lanes, pitch, row_size = shape.rows, shape.cols, shape.lanes, shape.pitch, shape.row_size

    def write_bounds(x: Any, u: Any, v: Any, noise: Any, lane: int, line: int) -> None:
        for j in range(cols if line < rows else 0):
            at = (line * pitch + j) * lanes + lane
            kept = wrap_int32(x[at] - v[j * lanes + lane]) >= u[line * lanes + lane]
            x[at] = _bound_of(wrap_int32(x[at] - noise[line * row_size + j]), kept)

    return device(write_bounds)


@cache
def _compile_lowering(shape: Shape) -> Any:
    """Compile a function that lowers duals until all tiles of the thread block have converged, or `lowerings` times.

    The function returns whether the duals of this thread's line, or the outer dual, changed in the last round.
    """
    rows, cols, lanes, row_keep, col_keep = shape.rows, shape.cols, shape.lanes, shape.row_keep, shape.col_keep
    step = shape.pitch * shape.lanes

    def lower_duals(
        x: Any, u: Any, v: Any, outer: Any, row_floor: Any, col_floor: Any, row_used: Any, col_used: Any,
        lowerings: int, non_negative: bool, lane: int, line: int,
    ) -> bool:  # fmt: skip
        here, row, moved = line * lanes + lane, line * step + lane, 1
        for _ in range(lowerings):
            old_u, old_v, old_outer = u[here], v[here], outer[lane]
            if line < cols:
                v[here] = _lowered_dual(x, here, step, u, lane, lanes, rows, v[here], 0)
            cuda.syncthreads()
            if line < rows:
                u[here] = _lowered_dual(x, row, lanes, v, lane, lanes, cols, u[here], 1)
            cuda.syncthreads()
            if non_negative:
                if line == 0:
                    lower_outer_dual(
                        u, v, outer, row_floor, col_floor, row_used, col_used, lane, lanes, rows, cols, row_keep,
                        col_keep,
                    )  # fmt: skip
                cuda.syncthreads()
            moved = np.int32(u[here] != old_u or v[here] != old_v or outer[lane] != old_outer)
            if not cuda.syncthreads_or(moved):
                break
        return moved != 0

    return device(lower_duals)


@cache
def _compile_row_proof(shape: Shape) -> Any:
    """Compile a function that returns whether the duals prove a row of the mask, and writes the row if `write`."""
    read, rows, cols, lanes, pitch = reader(shape.element), shape.rows, shape.cols, shape.lanes, shape.pitch

    def prove(
        scores: Any, top: int, left: int, x: Any, u: Any, v: Any, mask: Any, write: bool, lane: int, line: int
    ) -> bool:  # fmt: skip
        proved, i = True, top + line
        for j in range(cols if line < rows else 0):
            inside = i < scores.shape[0] and left + j < scores.shape[1]
            w = float(read(scores, i, left + j)) if inside else 0.0
            kept = x[(line * pitch + j) * lanes + lane] & np.int32(1)
            proved = proved and _proves(w, u[line * lanes + lane], v[j * lanes + lane], kept)
            if write:
                mask[i, left + j] = kept
        return proved

    return device(prove)


@cache
def compile_tie_pass(shape: Shape) -> Any:
    """Compile the pass; launch and arguments are those of `integer_pass.compile_integer_pass`.

    Further arguments of the kernel:

    lowerings: Maximum number of rounds in which duals are lowered.
    zoom: Bits by which the unit is finer than that of the integer pass.
    noise: `[rows * row_size]` int32, from `kernels.dual_ascent.tie_pass.tie_noise`.
    ready: `[down * across]` uint8, set to 1 for tiles whose mask is the best of all masks with the same column counts,
        though these counts are not the budgets yet: augmenting paths can start from it.
    ready_tiles, ready_count: Indices of these tiles, appended to `ready_tiles[: ready_count[0]]`.
    """
    peak_of, load, run_sweeps = compile_row_peak(shape.element), _row_loader(shape), compile_sweeps(shape)
    row_balanced, col_balanced = compile_row_check(shape), compile_col_check(shape)
    write_bounds, lower_duals, prove = _compile_bounds(shape), _compile_lowering(shape), _compile_row_proof(shape)
    lanes, pitch, places, threads = shape.lanes, shape.pitch, shape.places * shape.lanes, shape.lanes * shape.lines
    rows, cols, row_keep, col_keep, at_most = shape.rows, shape.cols, shape.row_keep, shape.col_keep, shape.at_most
    int32, float64 = cuda.types.int32, cuda.types.float64

    def run(
        scores: Any, across: int, sweeps: int, lowerings: int, zoom: int, noise: Any, non_negative: bool, order: Any,
        count: Any, unsolved: Any, unsolved_count: Any, mask: Any, row_duals: Any, col_duals: Any, ready: Any,
        ready_tiles: Any, ready_count: Any, invalid: Any,
    ) -> None:  # fmt: skip
        lane, line, first = cuda.threadIdx.x, cuda.threadIdx.y, cuda.blockIdx.x * lanes
        if first >= count[0]:
            return
        x = cuda.shared.array(places, int32)
        u = cuda.shared.array(threads, int32)
        v = cuda.shared.array(threads, int32)
        row_floor = cuda.shared.array(threads, int32)
        col_floor = cuda.shared.array(threads, int32)
        row_used = cuda.shared.array(threads, int32)
        col_used = cuda.shared.array(threads, int32)
        row_dual = cuda.shared.array(threads, float64)
        col_dual = cuda.shared.array(threads, float64)
        balanced = cuda.shared.array(lanes, int32)
        proved = cuda.shared.array(lanes, int32)
        exponents = cuda.shared.array(lanes, int32)
        outer = cuda.shared.array(lanes, int32)
        t, here = order[min(first + lane, count[0] - 1)], line * lanes + lane
        top, left = (t // across) * rows, (t % across) * cols

        # `row_dual` first holds the largest score of each row, until the exponent is known.
        row_dual[here] = peak_of(scores, top + line, left, cols, invalid) if line < rows else 0.0
        cuda.syncthreads()
        if line == 0:
            exponents[lane] = _exponent(tile_peak(row_dual, lane, lanes, rows), zoom)
            balanced[lane] = proved[lane] = 1
            outer[lane] = 0
        cuda.syncthreads()
        unit, factor = _fine_unit(exponents[lane]), 0.5 * math.ldexp(1.0, int(exponents[lane]))
        u[here] = v[here] = 0
        row_dual[here] = _round_to_even(row_duals[t, line], unit) if line < rows else 0.0
        col_dual[here] = _round_to_even(col_duals[t, line], unit) if line < cols else 0.0
        row_floor[here] = _floor_of(row_dual[here], unit, non_negative)
        col_floor[here] = _floor_of(col_dual[here], unit, non_negative)
        cuda.syncthreads()
        load(scores, top, left, factor, row_dual, col_dual, noise, x, lane, line)
        cuda.syncthreads()

        run_sweeps(x, u, v, row_floor[here], col_floor[here], sweeps, lane, line)
        # Columns need not be balanced for a proof: such a tile becomes `ready` instead of solved.
        if not col_balanced(x, u, v, col_floor[here], lane, line):
            balanced[lane] = 0
        if not row_balanced(x, u, v, row_floor[here], lane, line):
            proved[lane] = 0
        cuda.syncthreads()
        write_bounds(x, u, v, noise, lane, line)
        cuda.syncthreads()
        u[here] &= EVEN
        # From here on, `v` holds negated column duals, so that rows and columns are lowered by the same code.
        v[here] = wrap_int32(-(v[here] & EVEN))
        if non_negative and line < rows:
            row_used[here] = count_used(x, line * pitch * lanes + lane, lanes, cols)
        if non_negative and line < cols:
            used = count_used(x, here, pitch * lanes, rows)
            col_used[here] = used_or_full(v[here], col_floor[here], used, col_keep)
        cuda.syncthreads()

        # Lowering continues until all tiles of the thread block have converged; it does not change the duals of
        # converged tiles.
        if lower_duals(x, u, v, outer, row_floor, col_floor, row_used, col_used, lowerings, non_negative, lane, line):
            proved[lane] = 0
        if line < rows:
            row_dual[here] += (float(u[here]) - float(outer[lane])) * unit
        if line < cols:
            col_dual[here] -= (float(v[here]) - float(outer[lane])) * unit
        cuda.syncthreads()
        if not prove(scores, top, left, x, row_dual, col_dual, mask, first + lane < count[0], lane, line):
            proved[lane] = 0
        if non_negative and line < rows and not is_valid_dual(row_dual[here], row_used[here], row_keep):
            proved[lane] = 0
        if non_negative and line < cols and not is_valid_dual(col_dual[here], col_used[here], col_keep):
            proved[lane] = 0
        cuda.syncthreads()
        if at_most and not non_negative and line == 0 and not shift_duals(row_dual, col_dual, lane, lanes, rows, cols):
            proved[lane] = 0
        cuda.syncthreads()

        if first + lane >= count[0]:
            return
        if proved[lane] and line < rows:
            row_duals[t, line] = row_dual[here]
        if proved[lane] and line < cols:
            col_duals[t, line] = col_dual[here]
        if line == 0 and not proved[lane]:
            unsolved[cuda.atomic.add(unsolved_count, 0, 1)] = t
        if line == 0 and proved[lane] and not balanced[lane]:
            ready[t] = 1
            ready_tiles[cuda.atomic.add(ready_count, 0, 1)] = t

    return kernel(run)
