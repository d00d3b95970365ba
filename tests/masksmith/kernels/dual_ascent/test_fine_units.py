"""Vector operations of the tie pass against Python floats, integers and fractions."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from support.naive_lanes import LANES, bits, line

from masksmith.kernels.dual_ascent.fine_units import (
    CLIP,
    UNBOUNDED,
    dual_bounds,
    fine_scales,
    lower_duals,
    proved_lanes,
    residual_scores,
)
from masksmith.kernels.jit import jit

ROW_SIZE, ROWS, COLS = 8, 5, 6
CELLS = [(i, j) for i in range(ROWS) for j in range(COLS)]
EXTREMES = [0.0, 5e-324, 1e-310, 2.0**-1000, 2.0**-900, 2.0**-126, 0.1, 1.0, 2.0, 3.0, 1e30, 1e200, 1e250, 2.0**926,
            2.0**927, 1.7976931348623157e308]  # fmt: skip


@jit
def scale(peak, zoom, factor, unit):
    """Intrinsics can only be called by kernels; sizes are literals."""
    fine_scales(peak, zoom, factor, unit)


@jit
def residual(raw, u, v, factor, noise, x, perturbed):
    residual_scores(raw, u, v, factor, noise, x, perturbed, ROWS, COLS, ROW_SIZE)


@jit
def bounds_of(x, perturbed, u, v, row_bound, col_bound):
    dual_bounds(x, perturbed, u, v, row_bound, col_bound, ROWS, COLS, ROW_SIZE)


@jit
def lower(bounds, lines, line_stride, entry_stride, cross_duals, own_duals):
    return lower_duals(bounds, lines, line_stride, entry_stride, cross_duals, own_duals, ROW_SIZE)


@jit
def proved(raw, dropped, u, v, strict):
    if strict:
        return proved_lanes(raw, dropped, u, v, ROWS, COLS, ROW_SIZE, 1)
    return proved_lanes(raw, dropped, u, v, ROWS, COLS, ROW_SIZE, 0)


def lanes(array):
    return np.ascontiguousarray(array).reshape(-1)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("zoom", [0, 4, 20])
def test_units_are_finer_than_27_bits_of_the_largest_score(dtype, zoom):
    with np.errstate(over="ignore"):
        peak = np.minimum(np.array(EXTREMES).astype(dtype), np.finfo(dtype).max)
    factor, unit = np.empty(LANES), np.empty(LANES)
    scale(peak, zoom, factor, unit)
    for lane in range(LANES):
        exponent = min(min(27 - math.frexp(peak[lane])[1], 1074) + zoom, 1000) if peak[lane] else 0
        assert factor[lane] == 2.0 ** (exponent - 1)
        assert unit[lane] == (2.0**-exponent if exponent > -900 else 0.0)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_residual_scores_compare_like_the_exact_ones(dtype):
    rng = np.random.default_rng(0)
    raw = (rng.integers(0, 2000, (ROWS, ROW_SIZE, LANES)) * rng.choice([1.0, 0.1], (1, 1, LANES))).astype(dtype)
    u, v = (2.0 * rng.integers(-300, 300, (8, LANES)) for _ in range(2))
    factor, noise = 2.0 ** rng.integers(-3, 24, LANES), 2 * rng.integers(0, 9, (ROWS, ROW_SIZE)).astype(np.int32)
    x, perturbed = (np.full((ROWS, ROW_SIZE, LANES), -7, np.int32) for _ in range(2))
    flat = [lanes(array) for array in (raw, u, v, factor, noise)]
    residual(*flat, x.reshape(-1), perturbed.reshape(-1))
    for i, j in CELLS:
        for lane in range(LANES):
            rest = (float(raw[i, j, lane]) - v[j, lane] - u[i, lane]) * factor[lane]
            rest = min(max(rest, -CLIP), CLIP)
            value = 2 * math.floor(rest) + (rest != math.floor(rest))
            assert x[i, j, lane] == value
            assert perturbed[i, j, lane] == value + noise[i, j]
    assert (x[:, COLS:] == -7).all()
    assert (perturbed[:, COLS:] == -7).all()


def test_a_mask_bounds_the_duals():
    rng = np.random.default_rng(1)
    x, perturbed = (rng.integers(-5, 6, (ROWS, ROW_SIZE, LANES)).astype(np.int32) for _ in range(2))
    u, v = (rng.integers(-3, 4, (8, LANES)).astype(np.int32) for _ in range(2))
    row_bound, col_bound = (np.full(x.shape, UNBOUNDED, np.int32) for _ in range(2))
    kept = perturbed[:, :COLS] >= u[:ROWS, None] + v[None, :COLS]
    bounds_of(lanes(x), perturbed.reshape(-1), lanes(u), lanes(v), row_bound.reshape(-1), col_bound.reshape(-1))
    assert np.array_equal(perturbed[:, :COLS], np.where(kept, 0, -1))
    for i, j in CELLS:
        for lane in range(LANES):
            # Duals are even: a kept entry allows sums up to the even number below x, a dropped one from that above.
            below, above = x[i, j, lane] // 2 * 2, -(-x[i, j, lane] // 2) * 2
            assert row_bound[i, j, lane] == (below if kept[i, j, lane] else UNBOUNDED)
            assert col_bound[i, j, lane] == (UNBOUNDED if kept[i, j, lane] else -above)


@pytest.mark.parametrize(("line_stride", "entry_stride"), [(ROW_SIZE, 1), (1, ROW_SIZE)])
@pytest.mark.parametrize("slack", [0, 4, 40])
def test_duals_are_lowered_to_their_bounds(line_stride, entry_stride, slack):
    rng = np.random.default_rng(slack)
    bounds = rng.integers(-9, 9, (ROW_SIZE * ROW_SIZE, LANES)).astype(np.int32)
    bounds[rng.random(bounds.shape) < 0.3] = UNBOUNDED
    cross_duals, own_duals = (rng.integers(-4, 5, (8, LANES)).astype(np.int32) for _ in range(2))
    own_duals -= slack
    expected = own_duals.copy()
    for number in range(6):
        rest = (line(bounds, number * line_stride, entry_stride, ROW_SIZE).astype(np.int64) + cross_duals).min(0)
        expected[number] = np.minimum(own_duals[number], rest)
    actual = own_duals.copy()
    same = lower(lanes(bounds), 6, line_stride, entry_stride, lanes(cross_duals), actual.reshape(-1))
    assert np.array_equal(actual, expected)
    assert same == bits((expected == own_duals).all(0))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("strict", [False, True])
def test_proofs_are_exact(dtype, strict):
    results = set()
    for seed in range(12):
        rng = np.random.default_rng(seed)
        u = rng.choice([0.0, 1.0, 2.0, 2.0**-60, -(2.0**-60), 1e300], (8, LANES), p=[0.3, 0.3, 0.2, 0.1, 0.05, 0.05])
        v = rng.choice([0.0, 1.0, 3.0, 2.0**-53], (8, LANES), p=[0.4, 0.3, 0.2, 0.1])
        kept = rng.random((ROWS, ROW_SIZE, LANES)) < 0.5
        raw = np.clip(u[:ROWS, None] + v[None], 0, 3e38).astype(dtype)
        raw += np.where(kept, 1, -1).astype(dtype) * rng.choice([0, 1], (1, 1, LANES), p=[0.4, 0.6]).astype(dtype)
        dropped = np.where(kept, 0, -1).astype(np.int32)
        expected = []
        for lane in range(LANES):
            holds = True
            for i, j in CELLS:
                total = Fraction(u[i, lane]) + Fraction(v[j, lane])
                side = (Fraction(float(raw[i, j, lane])) - total) * (1 if kept[i, j, lane] else -1)
                holds &= side > 0 if strict else (side >= 0 and total == Fraction(u[i, lane] + v[j, lane]))
            expected.append(holds)
        results |= set(expected)
        assert proved(lanes(raw), lanes(dropped), lanes(u), lanes(v), strict) == bits(expected)
    assert results == {True, False}
