"""Vector operations on 16 tiles against their twins in Python integers."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from support import naive_lanes as slow

from masksmith.kernels.dual_ascent.simd.lanes import (
    MAX_DUAL,
    MAX_EXPONENT,
    MIN_EXPONENT,
    balanced_lanes,
    gather,
    quantise,
    scales,
    scatter_duals,
    scatter_mask,
    threshold_update,
)
from masksmith.kernels.dual_ascent.simd.vectors import LANES
from masksmith.kernels.jit import jit

ROW_SIZE, WIDTH = 8, 4
ROWS, COLS, STRIDE = 5, 4, 70
PAD, NO_FLOOR = -(1 << 29), -(1 << 30)


@jit
def load_tiles(scores, starts, raw, peak):
    """Intrinsics can only be called by kernels; sizes and widths are literals."""
    gather(scores, starts, STRIDE, raw, peak, ROWS, COLS, ROW_SIZE, WIDTH)


@jit
def scale_tiles(peak, scale, rescale, unit, raw, x):
    in_range = scales(peak, scale, rescale, unit)
    quantise(raw, scale, rescale, x, ROWS, COLS, ROW_SIZE)
    return in_range


@jit
def update_and_check(x, lines, line_stride, entry_stride, cross_duals, own_duals, floors, keep, relax, scratch):
    if keep == ROW_SIZE // 2:
        threshold_update(
            x,
            lines,
            line_stride,
            entry_stride,
            cross_duals,
            own_duals,
            floors,
            keep,
            np.int32(relax),
            scratch,
            ROW_SIZE,
            True,
        )
    else:
        threshold_update(
            x,
            lines,
            line_stride,
            entry_stride,
            cross_duals,
            own_duals,
            floors,
            keep,
            np.int32(relax),
            scratch,
            ROW_SIZE,
            False,
        )
    return balanced_lanes(x, lines, line_stride, entry_stride, cross_duals, own_duals, floors, np.int32(keep), ROW_SIZE)


@jit
def store_tiles(x, u, v, unit, mask, mask_starts, duals, dual_starts):
    scatter_mask(x, u, v, mask, mask_starts, STRIDE, ROWS, COLS, ROW_SIZE, WIDTH)
    scatter_duals(v, unit, duals, dual_starts, COLS, WIDTH)


def starts_of(tiles):
    """Offsets of tiles that lie in two rows of 16 in a matrix with `STRIDE` entries per row."""
    return np.array([tile // LANES * ROWS * STRIDE + tile % LANES * COLS for tile in tiles])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_tiles_are_gathered_into_lanes(dtype):
    scores = np.random.default_rng(0).random((2 * ROWS, STRIDE)).astype(dtype)
    order = np.random.default_rng(1).permutation(2 * LANES)[:LANES]
    raw, peak = np.full(ROWS * ROW_SIZE * LANES, -7.0, dtype), np.full(LANES, 0.9, dtype)
    load_tiles(scores.reshape(-1), starts_of(order), raw, peak)
    tiles = np.array([scores.reshape(-1)[s + np.add.outer(np.arange(ROWS) * STRIDE, np.arange(COLS))]
                      for s in starts_of(order)])  # fmt: skip
    assert np.array_equal(raw.reshape(-1, LANES), slow.to_lanes(tiles, ROW_SIZE, -7.0))
    assert np.array_equal(peak, np.maximum(tiles.max((1, 2)), dtype(0.9)))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_scores_are_rounded_down_to_27_bits_of_the_largest(dtype):
    limits, rng = np.finfo(dtype), np.random.default_rng(2)
    smallest, powers = limits.smallest_subnormal, 2.0 ** rng.integers(-120, 120, 8)
    peak = np.array([0.0, smallest, 3 * smallest, limits.tiny, limits.max, 1.0, 2.0, 0.1, *powers], dtype)
    tiles = (peak[:, None, None] * rng.random((LANES, ROWS, COLS))).astype(dtype)
    tiles[:, 0, 0] = peak
    raw = slow.to_lanes(tiles, ROW_SIZE, 0.0)
    scale, rescale, unit = np.empty(LANES, dtype), np.empty(LANES, dtype), np.empty(LANES)
    x = np.full(ROWS * ROW_SIZE * LANES, PAD, np.int32)
    in_range = scale_tiles(peak, scale, rescale, unit, raw.reshape(-1), x)
    quantised = x.reshape(ROWS, ROW_SIZE, LANES)
    assert (quantised[:, COLS:] == PAD).all()
    for lane in range(LANES):
        if not in_range >> lane & 1:
            assert unit[lane] == 0.0
            assert peak[lane] >= 2.0 ** (26 - MIN_EXPONENT)
            continue
        step = Fraction(float(unit[lane]))
        exact = [[Fraction(float(w)) // step for w in row] for row in tiles[lane]]
        assert quantised[:, :COLS, lane].tolist() == exact
        assert peak[lane] == 0 or (1 << 26) <= exact[0][0] < (1 << 27) or step == Fraction(1, 1 << MAX_EXPONENT)


def case(seed, keep):
    """Random integers with ties in 8 x 8 lanes, duals and floors."""
    rng = np.random.default_rng(seed)
    spread = int(rng.choice([2, 50, 1 << 27]))
    x = rng.integers(0, spread, (ROW_SIZE * ROW_SIZE, LANES)).astype(np.int32)
    x.reshape(ROW_SIZE, ROW_SIZE, LANES)[:, 6:] = PAD if seed % 2 and keep < 6 else 0
    cross_duals, own_duals = (rng.integers(-spread // 2, spread, (ROW_SIZE, LANES)).astype(np.int32) for _ in range(2))
    floors = rng.choice(np.array([NO_FLOOR, 0, spread // 3], np.int32), (ROW_SIZE, LANES))
    own_duals[0, :2] = MAX_DUAL, -MAX_DUAL
    return x, cross_duals, own_duals, floors


@pytest.mark.parametrize("keep", [1, 3, 4, 7])
@pytest.mark.parametrize("relax", [0, -1])
@pytest.mark.parametrize(("line_stride", "entry_stride"), [(ROW_SIZE, 1), (1, ROW_SIZE)])
def test_thresholds_are_updated_and_budgets_counted(keep, relax, line_stride, entry_stride):
    for seed in range(6):
        x, cross_duals, own_duals, floors = case(seed, keep)
        lines = 8 if line_stride > 1 else 6
        expected = slow.threshold_update(
            x, lines, line_stride, entry_stride, cross_duals, own_duals, floors, keep, relax, ROW_SIZE
        )
        actual, scratch = own_duals.reshape(-1).copy(), np.empty(ROW_SIZE * LANES, np.int32)
        arrays = (cross_duals.reshape(-1), actual, floors.reshape(-1))
        result = update_and_check(x.reshape(-1), lines, line_stride, entry_stride, *arrays, keep, relax, scratch)
        assert np.array_equal(actual.reshape(-1, LANES), expected)
        assert result == slow.balanced(
            x, lines, line_stride, entry_stride, cross_duals, expected, floors, keep, ROW_SIZE, MAX_DUAL
        )


def test_masks_and_duals_are_scattered_to_their_tiles():
    rng = np.random.default_rng(3)
    x = rng.integers(0, 4, (ROWS * ROW_SIZE, LANES)).astype(np.int32)
    u, v = (rng.integers(-1, 3, (ROW_SIZE, LANES)).astype(np.int32) for _ in range(2))
    unit, order = 2.0 ** rng.integers(-1000, 900, LANES), rng.permutation(2 * LANES)[:LANES]
    mask, duals = np.zeros((2 * ROWS, STRIDE), np.bool_), np.full((2 * LANES, COLS), np.nan)
    expected_mask, expected_duals = mask.copy(), duals.copy()
    lanes = x.reshape(ROWS, ROW_SIZE, LANES)[:, :COLS] >= u[:ROWS, None] + v[None, :COLS]
    for lane, tile in enumerate(order):
        top, left = tile // LANES * ROWS, tile % LANES * COLS
        expected_mask[top : top + ROWS, left : left + COLS] = lanes[:, :, lane]
        expected_duals[tile] = v[:COLS, lane] * unit[lane]
    flat = (x.reshape(-1), u.reshape(-1), v.reshape(-1))
    store_tiles(*flat, unit, mask.reshape(-1), starts_of(order), duals.reshape(-1), order * COLS)
    assert np.array_equal(mask, expected_mask)
    assert np.array_equal(duals, expected_duals, equal_nan=True)
