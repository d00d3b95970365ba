"""Waves for tiles with ties, where half-way thresholds alone never settle which of equal entries to keep.

What the sweeps left, `w - u - v`, is taken under a finer unit, and equal entries are told apart by noise that depends
on their place only. Sweeps settle the noisy tile. Then the noise is dropped: starting from noisy potentials, each is
lowered to what the mask allows until none has to move (Bellman-Ford, nearly done from the start). That proves the mask
for the scores as they are, or it fails, and shortest paths take over.

The noise shows no pattern: sweeps then settle ties as fast as gaussian scores. Few sweeps will do, for a mask whose
columns are not right yet can be proved the best of all with such columns, and few paths mend it from there.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from masksmith._panels import Bools, Duals, Matrix
from masksmith.kernels.jit import borrow, jit
from masksmith.kernels.tile import Budget, Bytes, Floats, Ints, Order

from .at_most import count_kept, excuse, legal, lower_outer, shift_prices
from .fine_units import FAR, fine_scales, lower, proving, residue, split
from .integer_pass import NO_FLOOR, PAD, Lanes, aligned, keep_rest, locate, new_starts
from .simd.lanes import fitting, gather, middle, scatter_mask
from .simd.vectors import LANES


@cache
def noise_of(budget: Budget, row_size: int, bits: int) -> Lanes:
    """Give the noise of every place, even and below `2^bits`."""
    rows, cols = np.arange(budget.rows)[:, None], np.arange(budget.cols)[None, :]
    noise = np.zeros((budget.rows, row_size), np.int32)
    noise[:, : budget.cols] = (_hash(rows * 64 + cols) >> (32 - bits)) & ~1
    return noise.reshape(-1)


def _hash(places: Ints) -> Ints:
    """Mix indices to 32 bits that show no pattern."""
    mixed = (places + 1) * 2654435761 % (1 << 32)
    for _ in range(3):
        mixed = (mixed ^ (mixed >> 15)) * 2246822519 % (1 << 32)
    return mixed ^ (mixed >> 13)


@borrow
def _read(
    duals: Duals, tiles: Order, length: int, prices: Floats, floors: Lanes, factor: Floats, unit: Floats, limited: bool
) -> None:
    """Bring potentials into lanes; with limits, find how far each may fall."""
    for i in range(length):
        for lane in range(LANES):
            # Even multiples of the unit, so that every price can move by even steps and end at exactly 0.
            prices[i * LANES + lane] = 2.0 * unit[lane] * np.rint(factor[lane] * duals[tiles[lane], i])
    for i in range(length):
        for lane in range(LANES):
            low = float(NO_FLOOR)
            if limited and unit[lane] > 0.0:
                low = max(-2.0 * factor[lane] * prices[i * LANES + lane], float(-(1 << 28)))
            floors[i * LANES + lane] = np.int32(low)


@borrow
def _write(duals: Duals, tiles: Order, length: int, prices: Floats, done: int) -> None:
    for lane in range(LANES):
        if (done >> lane) & 1:
            for i in range(length):
                duals[tiles[lane], i] = prices[i * LANES + lane]


@borrow
def _add(prices: Floats, moved: Lanes, outer: Lanes, sign: int, unit: Floats, length: int) -> None:
    for i in range(length):
        for lane in range(LANES):
            move = np.float64(sign) * (np.float64(moved[i * LANES + lane]) - np.float64(outer[lane]))
            prices[i * LANES + lane] += move * unit[lane]


@borrow
def _mark(ready: Bytes, tiles: Order, lanes: int) -> None:
    for lane in range(LANES):
        if (lanes >> lane) & 1:
            ready[tiles[lane]] = 1


@cache
def tie_wave(row_size: int, col_size: int, row_half: bool, col_half: bool, wide: int) -> Callable[..., Any]:
    """Make the kernel of one such wave; arguments as in `integer_pass.wave`."""

    @jit
    def run(
        scores: Matrix, budget: Budget, sweeps: int, rounds: int, zoom: int, noise: Lanes, limited: bool, order: Order,
        count: int, mask: Bools, row_duals: Duals, col_duals: Duals, ready: Bytes,
    ) -> int:  # fmt: skip
        """Solve the first `count` tiles of `order`; leave those not solved at its front, give their number.

        With `limited` no price falls below 0; without it counts are exact, and at-most budgets shift prices afterwards.
        Tiles whose columns are still wrong, but whose mask is the best of all with such columns, are `ready` for paths.
        """
        rows, cols = budget.rows, budget.cols
        size = col_size * row_size * LANES
        raw = np.empty(rows * row_size * LANES, scores.dtype)
        x, tied, take, give = aligned(size), aligned(size), aligned(size), aligned(size)
        tied[:] = PAD
        take[:] = give[:] = FAR
        shelf, outer = aligned(max(row_size, col_size) * LANES), aligned(LANES)
        u, v = aligned(col_size * LANES), aligned(row_size * LANES)
        row_floor, col_floor = aligned(col_size * LANES), aligned(row_size * LANES)
        row_used, col_used = aligned(col_size * LANES), aligned(row_size * LANES)
        row_price, col_price = np.zeros(col_size * LANES), np.zeros(row_size * LANES)
        peak, factor, unit = np.empty(LANES, scores.dtype), np.empty(LANES), np.empty(LANES)
        starts = new_starts()
        left = 0
        for first in range(0, count, LANES):
            locate(starts, order, first, count, scores, mask, rows, cols)
            peak[:] = 0
            gather(scores, starts.scores, starts.stride[0], raw, peak, rows, cols, row_size, wide)
            fine_scales(peak, zoom, factor, unit)
            _read(row_duals, starts.tile, rows, row_price, row_floor, factor, unit, limited)
            _read(col_duals, starts.tile, cols, col_price, col_floor, factor, unit, limited)
            residue(raw, row_price, col_price, factor, noise, x, tied, rows, cols, row_size)
            u[:] = v[:] = outer[:] = 0
            for sweep in range(sweeps):
                relax = np.int32(0 if sweep == 0 or sweep == sweeps - 1 else -1)
                middle(
                    tied, rows, row_size, 1, v, u, row_floor, budget.row_keep, np.int32(0), shelf, row_size, row_half
                )
                middle(tied, cols, 1, row_size, u, v, col_floor, budget.col_keep, relax, shelf, col_size, col_half)
            middle(tied, rows, row_size, 1, v, u, row_floor, budget.row_keep, np.int32(0), shelf, row_size, row_half)
            fits = fitting(tied, cols, 1, row_size, u, v, col_floor, np.int32(budget.col_keep), col_size)
            sound = fitting(tied, rows, row_size, 1, v, u, row_floor, np.int32(budget.row_keep), row_size)
            if sound == 0:
                left = keep_rest(order, first, count, 0, left)
                continue
            split(x, tied, u, v, take, give, rows, cols, row_size)
            u &= np.int32(-2)
            v[:] = -(v & np.int32(-2))
            if limited:
                count_kept(tied, rows, cols, row_size, row_used, col_used)
                excuse(v, col_floor, col_used, cols, budget.col_keep)
            settled = 0
            for _ in range(rounds):
                settled = lower(give, cols, 1, row_size, u, v, col_size)
                settled &= lower(take, rows, row_size, 1, v, u, row_size)
                if limited:
                    settled &= lower_outer(budget, u, v, outer, row_floor, col_floor, row_used, col_used)
                if settled & sound == sound:
                    break
            _add(row_price, u, outer, 1, unit, rows)
            _add(col_price, v, outer, -1, unit, cols)
            sound &= settled & proving(raw, tied, row_price, col_price, rows, cols, row_size, 0)
            if limited:
                sound &= legal(budget, row_price, row_used, rows, budget.row_keep)
                sound &= legal(budget, col_price, col_used, cols, budget.col_keep)
            elif budget.at_most:
                sound &= shift_prices(row_price, col_price, rows, cols)
            u[:] = v[:] = 0
            scatter_mask(tied, u, v, mask, starts.mask, starts.stride[1], rows, cols, row_size, wide)
            _write(row_duals, starts.tile, rows, row_price, sound)
            _write(col_duals, starts.tile, cols, col_price, sound)
            _mark(ready, starts.tile, sound & ~fits)
            left = keep_rest(order, first, count, sound, left)
        return left

    return run
