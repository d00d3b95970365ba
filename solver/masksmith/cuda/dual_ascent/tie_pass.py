"""One launch, one wave for tiles with ties, number for number as `kernels.dual_ascent.tie_pass` does it.

What the sweeps left, `w - u - v`, is taken under a finer unit; noise that depends on the place only tells equal entries
apart; sweeps settle the noisy tile; then the noise is dropped and potentials are lowered until none has to move.

An entry's word holds its noisy residue during sweeps, and afterwards its bound on potentials, which is even, with the
lowest bit set where it is kept.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np

from masksmith.cuda.elements import reader
from masksmith.cuda.jit import cuda, device, kernel, narrow
from masksmith.kernels.dual_ascent.fine_units import CLIP, FAR
from masksmith.kernels.dual_ascent.integer_pass import NO_FLOOR, PAD
from masksmith.kernels.dual_ascent.simd.lanes import SCORE_BITS

from .at_most import count_used, excuse, legal, lower_outer, shift_prices
from .descent import col_fits, descent, row_fits, row_peak, tile_peak
from .shape import Shape
from .thread_block import nearest

EVEN = np.int32(-2)


@device
def _exponent(peak: float, zoom: int) -> int:
    return min(SCORE_BITS - math.frexp(peak)[1] + zoom, 1000) if peak > 0.0 else 0


@device
def _fine_unit(exponent: int) -> float:
    return math.ldexp(1.0, -int(exponent)) if exponent > -900 else 0.0


@device
def _even_price(dual: float, unit: float) -> float:
    """Round to even multiples of the unit: every price can then move by even steps and end at exactly 0."""
    return 2.0 * unit * nearest(0.5 * dual / unit) if unit > 0.0 else 0.0


@device
def _floor_of(price: float, unit: float, limited: bool) -> int:
    if limited and unit > 0.0:
        return np.int32(max(-price / unit, float(-(1 << 28))))
    return np.int32(NO_FLOOR)


@device
def _residue(w: float, u: float, v: float, factor: float) -> int:
    """Give twice `(w - v - u) * factor`, rounded down to even integers, and up to odd ones what was none."""
    rest = min(max(((w - v) - u) * factor, -CLIP), CLIP)
    whole = np.int32(rest)
    below, odd = np.int32(rest < whole), np.int32(rest != whole)
    return narrow(narrow(narrow(whole - below) << 1) | odd)


@device
def _bound_of(score: int, kept: bool) -> int:
    """Encode what an entry asks of potentials: `u <= bound - v` where kept, `-v <= bound + u` where dropped."""
    if kept:
        return narrow((score & EVEN) | 1)
    return narrow(-(narrow(score + 1) & EVEN))


@device
def _lowered(
    x: Any, first: int, step: int, others: Any, lane: int, lanes: int, count: int, own: int, kept: int
) -> int:  # fmt: skip
    """Lower a line's potential to what its kept (1) or dropped (0) entries allow."""
    for p in range(count):
        word = x[first + p * step]
        bound = word & EVEN if word & np.int32(1) == kept else np.int32(FAR)
        own = min(own, narrow(bound + others[p * lanes + lane]))
    return own


@device
def _proves(w: float, u: float, v: float, kept: int) -> bool:
    total = u + v
    part = total - u
    error = (u - (total - part)) + (v - part)
    return error == 0.0 and (w >= total if kept else w <= total)


@cache
def _row_loader(shape: Shape) -> Any:
    """Make the function that writes the noisy residues of one row of a tile, and pads it."""
    read, rows, cols, lanes, pitch = reader(shape.element), shape.rows, shape.cols, shape.lanes, shape.pitch
    row_size, col_size = shape.row_size, shape.col_size

    def load(
        scores: Any, top: int, edge: int, factor: float, u: Any, v: Any, noise: Any, x: Any, lane: int, line: int
    ) -> None:  # fmt: skip
        i = top + line
        for j in range(row_size if line < col_size else 0):
            value = np.int32(PAD)
            if line < rows and j < cols:
                inside = i < scores.shape[0] and edge + j < scores.shape[1]
                w = float(read(scores, i, edge + j)) if inside else 0.0
                rest = _residue(w, u[line * lanes + lane], v[j * lanes + lane], factor)
                value = narrow(rest + noise[line * row_size + j])
            x[(line * pitch + j) * lanes + lane] = value

    return device(load)


@cache
def _splitter(shape: Shape) -> Any:
    """Make the function that settles a row's mask, and turns its residues, without their noise, into bounds."""
    rows, cols, lanes, pitch, row_size = shape.rows, shape.cols, shape.lanes, shape.pitch, shape.row_size

    def split(x: Any, u: Any, v: Any, noise: Any, lane: int, line: int) -> None:
        for j in range(cols if line < rows else 0):
            at = (line * pitch + j) * lanes + lane
            kept = narrow(x[at] - v[j * lanes + lane]) >= u[line * lanes + lane]
            x[at] = _bound_of(narrow(x[at] - noise[line * row_size + j]), kept)

    return device(split)


@cache
def _settler(shape: Shape) -> Any:
    """Make the rounds that lower potentials until none of the block has to move; they tell if this tile's still do."""
    rows, cols, lanes, row_keep, col_keep = shape.rows, shape.cols, shape.lanes, shape.row_keep, shape.col_keep
    step = shape.pitch * shape.lanes

    def settle(
        x: Any, u: Any, v: Any, outer: Any, row_floor: Any, col_floor: Any, row_used: Any, col_used: Any, rounds: int,
        limited: bool, lane: int, line: int,
    ) -> bool:  # fmt: skip
        here, row, moved = line * lanes + lane, line * step + lane, 1
        for _ in range(rounds):
            old_u, old_v, old_outer = u[here], v[here], outer[lane]
            if line < cols:
                v[here] = _lowered(x, here, step, u, lane, lanes, rows, v[here], 0)
            cuda.syncthreads()
            if line < rows:
                u[here] = _lowered(x, row, lanes, v, lane, lanes, cols, u[here], 1)
            cuda.syncthreads()
            if limited:
                if line == 0:
                    lower_outer(
                        u, v, outer, row_floor, col_floor, row_used, col_used, lane, lanes, rows, cols, row_keep,
                        col_keep,
                    )  # fmt: skip
                cuda.syncthreads()
            moved = np.int32(u[here] != old_u or v[here] != old_v or outer[lane] != old_outer)
            if not cuda.syncthreads_or(moved):
                break
        return moved != 0

    return device(settle)


@cache
def _row_prover(shape: Shape) -> Any:
    """Make the function that writes a row of the mask, and tells whether prices prove it."""
    read, rows, cols, lanes, pitch = reader(shape.element), shape.rows, shape.cols, shape.lanes, shape.pitch

    def prove(
        scores: Any, top: int, edge: int, x: Any, u: Any, v: Any, mask: Any, write: bool, lane: int, line: int
    ) -> bool:  # fmt: skip
        right, i = True, top + line
        for j in range(cols if line < rows else 0):
            inside = i < scores.shape[0] and edge + j < scores.shape[1]
            w = float(read(scores, i, edge + j)) if inside else 0.0
            kept = x[(line * pitch + j) * lanes + lane] & np.int32(1)
            right = right and _proves(w, u[line * lanes + lane], v[j * lanes + lane], kept)
            if write:
                mask[i, edge + j] = kept
        return right

    return device(prove)


@cache
def tie_wave(shape: Shape) -> Any:
    """Make the kernel of such a wave; blocks as in `integer_pass.wave`."""
    peak_of, load, descend, split = row_peak(shape.element), _row_loader(shape), descent(shape), _splitter(shape)
    row_right, col_right, settle, prove = row_fits(shape), col_fits(shape), _settler(shape), _row_prover(shape)
    lanes, pitch, places, threads = shape.lanes, shape.pitch, shape.places * shape.lanes, shape.lanes * shape.lines
    rows, cols, row_keep, col_keep, at_most = shape.rows, shape.cols, shape.row_keep, shape.col_keep, shape.at_most
    int32, float64 = cuda.types.int32, cuda.types.float64

    def run(
        scores: Any, across: int, sweeps: int, rounds: int, zoom: int, noise: Any, limited: bool, order: Any,
        count: Any, later: Any, left: Any, mask: Any, row_duals: Any, col_duals: Any, ready: Any, begun: Any,
        begun_count: Any, bad: Any,
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
        row_price = cuda.shared.array(threads, float64)
        col_price = cuda.shared.array(threads, float64)
        fitting = cuda.shared.array(lanes, int32)
        sound = cuda.shared.array(lanes, int32)
        exponents = cuda.shared.array(lanes, int32)
        outer = cuda.shared.array(lanes, int32)
        t, here = order[min(first + lane, count[0] - 1)], line * lanes + lane
        top, edge = (t // across) * rows, (t % across) * cols

        row_price[here] = peak_of(scores, top + line, edge, cols, bad) if line < rows else 0.0
        cuda.syncthreads()
        if line == 0:
            exponents[lane] = _exponent(tile_peak(row_price, lane, lanes, rows), zoom)
            fitting[lane] = sound[lane] = 1
            outer[lane] = 0
        cuda.syncthreads()
        unit, factor = _fine_unit(exponents[lane]), 0.5 * math.ldexp(1.0, int(exponents[lane]))
        u[here] = v[here] = 0
        row_price[here] = _even_price(row_duals[t, line], unit) if line < rows else 0.0
        col_price[here] = _even_price(col_duals[t, line], unit) if line < cols else 0.0
        row_floor[here] = _floor_of(row_price[here], unit, limited)
        col_floor[here] = _floor_of(col_price[here], unit, limited)
        cuda.syncthreads()
        load(scores, top, edge, factor, row_price, col_price, noise, x, lane, line)
        cuda.syncthreads()

        descend(x, u, v, row_floor[here], col_floor[here], sweeps, lane, line)
        if not col_right(x, u, v, col_floor[here], lane, line):
            fitting[lane] = 0
        if not row_right(x, u, v, row_floor[here], lane, line):
            sound[lane] = 0
        cuda.syncthreads()
        split(x, u, v, noise, lane, line)
        cuda.syncthreads()
        u[here] &= EVEN
        v[here] = narrow(-(v[here] & EVEN))
        if limited and line < rows:
            row_used[here] = count_used(x, line * pitch * lanes + lane, lanes, cols)
        if limited and line < cols:
            used = count_used(x, here, pitch * lanes, rows)
            col_used[here] = excuse(v[here], col_floor[here], used, col_keep)
        cuda.syncthreads()

        # A block goes on until all of its tiles have settled; those that have do not move any more.
        if settle(x, u, v, outer, row_floor, col_floor, row_used, col_used, rounds, limited, lane, line):
            sound[lane] = 0
        if line < rows:
            row_price[here] += (float(u[here]) - float(outer[lane])) * unit
        if line < cols:
            col_price[here] -= (float(v[here]) - float(outer[lane])) * unit
        cuda.syncthreads()
        if not prove(scores, top, edge, x, row_price, col_price, mask, first + lane < count[0], lane, line):
            sound[lane] = 0
        if limited and line < rows and not legal(row_price[here], row_used[here], row_keep):
            sound[lane] = 0
        if limited and line < cols and not legal(col_price[here], col_used[here], col_keep):
            sound[lane] = 0
        cuda.syncthreads()
        if at_most and not limited and line == 0 and not shift_prices(row_price, col_price, lane, lanes, rows, cols):
            sound[lane] = 0
        cuda.syncthreads()

        if first + lane >= count[0]:
            return
        if sound[lane] and line < rows:
            row_duals[t, line] = row_price[here]
        if sound[lane] and line < cols:
            col_duals[t, line] = col_price[here]
        if line == 0 and not sound[lane]:
            later[cuda.atomic.add(left, 0, 1)] = t
        if line == 0 and sound[lane] and not fitting[lane]:
            ready[t] = 1
            begun[cuda.atomic.add(begun_count, 0, 1)] = t

    return kernel(run)
