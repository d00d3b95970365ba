"""Dual coordinate ascent for tiles with ties, where half-way thresholds do not decide between equal entries.

1. The residual scores `w - u - v` of the integer pass are expressed in a finer unit.
2. Pseudo-random noise, a function of the entry's position only, is added to break ties, and sweeps solve the perturbed
   tile. With such noise, tiles with ties need as few sweeps as tiles with gaussian scores.
3. The noise is removed: starting from the perturbed duals, each dual is lowered to the bound that the mask implies
   until none changes (Bellman-Ford, which converges in few rounds from there). If it converges, the mask is proved for
   the original scores; otherwise the shortest-path stage solves the tile.

Few sweeps suffice: a mask whose column counts are still wrong can be proved optimal for those counts, and a few
augmenting paths then correct the counts.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from masksmith._panels import Bools, Duals, Matrix
from masksmith.kernels.jit import jit, jit_without_refcounts
from masksmith.kernels.tile import Budget, Bytes, Floats, Ints, Order

from .at_most import count_kept, lower_outer_dual, mark_full, shift_duals, valid_dual_lanes
from .fine_units import UNBOUNDED, dual_bounds, fine_scales, lower_duals, proved_lanes, residual_scores
from .integer_pass import NO_FLOOR, OF_MASK, OF_SCORES, PAD, Lanes, aligned_zeros, compact_unsolved, locate, new_starts
from .simd.lanes import balanced_lanes, gather, scatter_mask, threshold_update
from .simd.vectors import LANES


@cache
def tie_noise(budget: Budget, row_size: int, bits: int) -> Lanes:
    """Return the noise of every entry, `[rows * row_size]`, even and below `2^bits`."""
    rows, cols = np.arange(budget.rows)[:, None], np.arange(budget.cols)[None, :]
    noise = np.zeros((budget.rows, row_size), np.int32)
    noise[:, : budget.cols] = (_hash(rows * 64 + cols) >> (32 - bits)) & ~1
    return noise.reshape(-1)


def _hash(places: Ints) -> Ints:
    """Hash indices to 32 pseudo-random bits."""
    mixed = (places + 1) * 2654435761 % (1 << 32)
    for _ in range(3):
        mixed = (mixed ^ (mixed >> 15)) * 2246822519 % (1 << 32)
    return mixed ^ (mixed >> 13)


@jit_without_refcounts
def _read_duals(
    source: Duals,
    tiles: Order,
    length: int,
    duals: Floats,
    floors: Lanes,
    factor: Floats,
    unit: Floats,
    non_negative: bool,
) -> None:
    """Copy duals into lanes, rounded to even multiples of the unit; write the lower bound of each dual to `floors`.

    With `non_negative` the floor is the step, in units, that takes the dual to 0.
    """
    for i in range(length):
        for lane in range(LANES):
            # Even multiples of the unit, so that every dual can reach exactly 0 in even steps.
            duals[i * LANES + lane] = 2.0 * unit[lane] * np.rint(factor[lane] * source[tiles[lane], i])
    for i in range(length):
        for lane in range(LANES):
            low = float(NO_FLOOR)
            if non_negative and unit[lane] > 0.0:
                low = max(-2.0 * factor[lane] * duals[i * LANES + lane], float(-(1 << 28)))
            floors[i * LANES + lane] = np.int32(low)


@jit_without_refcounts
def _write_duals(target: Duals, tiles: Order, length: int, duals: Floats, done: int) -> None:
    """Write the duals of the lanes in the bit set `done` to their tiles."""
    for lane in range(LANES):
        if (done >> lane) & 1:
            for i in range(length):
                target[tiles[lane], i] = duals[i * LANES + lane]


@jit_without_refcounts
def _add_steps(duals: Floats, moved: Lanes, outer: Lanes, sign: int, unit: Floats, length: int) -> None:
    """Add `sign * (moved - outer) * unit` to the duals: the steps that the pass found, relative to the outer node."""
    for i in range(length):
        for lane in range(LANES):
            step = np.float64(sign) * (np.float64(moved[i * LANES + lane]) - np.float64(outer[lane]))
            duals[i * LANES + lane] += step * unit[lane]


@jit_without_refcounts
def _mark_ready(ready: Bytes, tiles: Order, lanes: int) -> None:
    """Set `ready` to 1 for the tiles of the lanes in the bit set `lanes`."""
    for lane in range(LANES):
        if (lanes >> lane) & 1:
            ready[tiles[lane]] = 1


@jit_without_refcounts
def _round_and_negate(u: Lanes, v: Lanes) -> None:
    """Round duals down to even numbers in place, and negate `v`, as `lower_duals` needs it."""
    # Loops: array expressions would add numba's code for shape errors, which takes seconds to compile.
    for i in range(len(u)):
        u[i] &= np.int32(-2)
    for i in range(len(v)):
        v[i] = -(v[i] & np.int32(-2))


@cache
def compile_tie_pass(
    row_size: int, col_size: int, row_median: bool, col_median: bool, width: int
) -> Callable[..., Any]:
    """Compile the pass; arguments as in `integer_pass.compile_integer_pass`."""

    @jit
    def run(
        scores: Matrix, budget: Budget, sweeps: int, lowerings: int, zoom: int, noise: Lanes, non_negative: bool,
        order: Order, count: int, mask: Bools, row_duals: Duals, col_duals: Duals, ready: Bytes,
    ) -> int:  # fmt: skip
        """Solve the first `count` tiles of `order`.

        Moves the indices of tiles that stay unsolved to the front of `order` and returns their number. Other arguments
        as in the integer pass, and:

        Args:
            sweeps: Number of sweeps.
            lowerings: Maximum number of rounds in which duals are lowered.
            zoom: Bits by which the unit is finer than that of the integer pass.
            noise: From `tie_noise`.
            non_negative: Whether duals are kept non-negative; otherwise rows and columns are filled exactly, and under
                at-most budgets the duals are then shifted so that none is negative, if possible.
            ready: `[down * across]`, set to 1 for tiles whose mask is the best of all masks with the same column
                counts, though these counts are not the budgets yet: augmenting paths can start from it.
        """
        rows, cols, row_keep, col_keep = budget.rows, budget.cols, budget.row_keep, budget.col_keep
        size = col_size * row_size * LANES
        raw = np.empty(rows * row_size * LANES, scores.dtype)
        x, perturbed, row_bound, col_bound = (
            aligned_zeros(size),
            aligned_zeros(size),
            aligned_zeros(size),
            aligned_zeros(size),
        )
        perturbed[:] = PAD
        row_bound[:] = col_bound[:] = UNBOUNDED
        scratch, outer = aligned_zeros(max(row_size, col_size) * LANES), aligned_zeros(LANES)
        u, v = aligned_zeros(col_size * LANES), aligned_zeros(row_size * LANES)
        row_floor, col_floor = aligned_zeros(col_size * LANES), aligned_zeros(row_size * LANES)
        row_used, col_used = aligned_zeros(col_size * LANES), aligned_zeros(row_size * LANES)
        row_dual, col_dual = np.zeros(col_size * LANES), np.zeros(row_size * LANES)
        peak, factor, unit = np.empty(LANES, scores.dtype), np.empty(LANES), np.empty(LANES)
        starts = new_starts()
        unsolved = 0
        for first in range(0, count, LANES):
            locate(starts, order, first, count, scores, mask, rows, cols)
            peak[:] = 0
            gather(scores, starts.scores, starts.stride[OF_SCORES], raw, peak, rows, cols, row_size, width)
            fine_scales(peak, zoom, factor, unit)
            _read_duals(row_duals, starts.tile, rows, row_dual, row_floor, factor, unit, non_negative)
            _read_duals(col_duals, starts.tile, cols, col_dual, col_floor, factor, unit, non_negative)
            residual_scores(raw, row_dual, col_dual, factor, noise, x, perturbed, rows, cols, row_size)
            u[:] = v[:] = outer[:] = 0
            for sweep in range(sweeps):
                # A bit mask: -1, all bits set, to increase the change of each dual by half; else 0.
                over_relax = np.int32(0 if sweep == 0 or sweep == sweeps - 1 else -1)
                threshold_update(
                    perturbed, rows, row_size, 1, v, u, row_floor, row_keep, np.int32(0), scratch, row_size, row_median
                )
                threshold_update(
                    perturbed, cols, 1, row_size, u, v, col_floor, col_keep, over_relax, scratch, col_size, col_median
                )
            threshold_update(
                perturbed, rows, row_size, 1, v, u, row_floor, row_keep, np.int32(0), scratch, row_size, row_median
            )
            balanced = balanced_lanes(perturbed, cols, 1, row_size, u, v, col_floor, np.int32(col_keep), col_size)
            proved = balanced_lanes(perturbed, rows, row_size, 1, v, u, row_floor, np.int32(row_keep), row_size)
            if proved == 0:
                unsolved = compact_unsolved(order, first, count, 0, unsolved)
                continue
            dual_bounds(x, perturbed, u, v, row_bound, col_bound, rows, cols, row_size)
            _round_and_negate(u, v)
            if non_negative:
                count_kept(perturbed, rows, cols, row_size, row_used, col_used)
                mark_full(v, col_floor, col_used, cols, col_keep)
            converged = 0
            for _ in range(lowerings):
                converged = lower_duals(col_bound, cols, 1, row_size, u, v, col_size)
                converged &= lower_duals(row_bound, rows, row_size, 1, v, u, row_size)
                if non_negative:
                    converged &= lower_outer_dual(budget, u, v, outer, row_floor, col_floor, row_used, col_used)
                if converged & proved == proved:
                    break
            _add_steps(row_dual, u, outer, 1, unit, rows)
            _add_steps(col_dual, v, outer, -1, unit, cols)
            proved &= converged & proved_lanes(raw, perturbed, row_dual, col_dual, rows, cols, row_size, 0)
            if non_negative:
                proved &= valid_dual_lanes(row_dual, row_used, rows, row_keep)
                proved &= valid_dual_lanes(col_dual, col_used, cols, col_keep)
            elif budget.at_most:
                proved &= shift_duals(row_dual, col_dual, rows, cols)
            u[:] = v[:] = 0
            scatter_mask(perturbed, u, v, mask, starts.mask, starts.stride[OF_MASK], rows, cols, row_size, width)
            _write_duals(row_duals, starts.tile, rows, row_dual, proved)
            _write_duals(col_duals, starts.tile, cols, col_dual, proved)
            _mark_ready(ready, starts.tile, proved & ~balanced)
            unsolved = compact_unsolved(order, first, count, proved, unsolved)
        return unsolved

    return run
