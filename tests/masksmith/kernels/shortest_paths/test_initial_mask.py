"""The initial mask and duals of a tile against sorting, and their invariants."""

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from support.kernel_tiles import SPECS, make_tile, mask_of
from support.naive_tiles import AWKWARD, awkward

from masksmith.kernels.shortest_paths.initial_mask import fix_forced, initialise_tile, initialise_wide_duals

CODES = np.array([0, 0, 0, 1, 255], np.uint8)


@pytest.mark.parametrize("spec", SPECS, ids=str)
@pytest.mark.parametrize("kind", AWKWARD)
@pytest.mark.parametrize("share", [0.0, 0.2])
def test_rows_keep_their_best_entries_at_the_column_duals(spec, kind, share):
    rng = np.random.default_rng(2)
    w = awkward(kind, (spec.rows, spec.cols)).astype(np.float64)
    v = rng.integers(-1 + spec.at_most, 3, spec.cols) * float(w.max()) / 4
    free = rng.random(w.shape) >= share
    tile, budget, search = make_tile(w, spec, np.zeros(w.shape), free, None, v)
    assert initialise_tile(tile, budget, search) == bool(spec.at_most or (free.sum(1) >= spec.row_keep).all())
    mask, rest = mask_of(tile, budget), w - v
    for i in range(spec.rows):
        if not spec.at_most and (free[: i + 1].sum(1) < spec.row_keep).any():
            return
        assert not mask[i, ~free[i]].any()
        assert (rest[i, mask[i]] >= tile.u[i]).all()
        assert (rest[i, free[i] & ~mask[i]] <= tile.u[i]).all()
        count = mask[i].sum()
        assert count <= spec.row_keep
        assert count == spec.row_keep or (spec.at_most and (tile.u[i] == 0.0 or count == free[i].sum()))
        assert tile.u[i] >= 0.0 or not spec.at_most


def test_a_valid_dual_is_not_moved_and_an_invalid_one_is_halved():
    spec = SPECS[0]
    w = np.tile([8.0, 6.0, 2.0, 1.0], (4, 1))
    tile, budget, search = make_tile(w, spec, None, None, [5.0, 6.0, 7.0, 1.0], None)
    assert initialise_tile(tile, budget, search)
    assert tile.u.tolist() == [5.0, 6.0, 4.0, 4.0]
    assert np.array_equal(mask_of(tile, budget), w > 4)


def test_constant_rows_start_at_different_columns():
    spec = SPECS[2]
    tile, budget, search = make_tile(np.ones((8, 8)), spec)
    assert initialise_tile(tile, budget, search)
    mask = mask_of(tile, budget)
    assert (mask.sum(0) == 3).all()
    assert (mask.sum(1) == 3).all()


@pytest.mark.parametrize("spec", SPECS, ids=str)
@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_forced_entries_are_fixed_or_refused(spec, seed):
    codes = np.random.default_rng(seed).choice(CODES, spec.rows * spec.cols)
    tile, budget, _ = make_tile(np.ones((spec.rows, spec.cols)), spec)
    grid = codes.reshape(spec.rows, spec.cols)
    too_many = (grid == 1).sum(0) > spec.col_keep
    too_few = (grid != 255).sum(0) < spec.col_keep
    allowed = not (too_many.any() or (too_few.any() and not spec.at_most))
    assert fix_forced(tile, budget, codes) == allowed
    if allowed:
        assert np.array_equal(mask_of(tile, budget), grid == 1)
        assert np.array_equal(tile.free.reshape(grid.shape) == 1, grid == 0)
        assert np.array_equal(tile.free_t.reshape(grid.T.shape) == 1, grid.T == 0)


def slow_sweeps(w, spec):
    """Three float64 sweeps of half-way thresholds, columns first, by sorting."""
    floor = 0.0 if spec.at_most else -np.inf
    u, v = np.zeros(spec.rows), np.zeros(spec.cols)

    def thresholds(rest, keep):
        ordered = -np.sort(-rest, axis=1)
        return np.maximum(floor, ordered[:, keep] + 0.5 * (ordered[:, keep - 1] - ordered[:, keep]))

    for _ in range(3):
        v = thresholds(w.T - u, spec.col_keep)
        u = thresholds(w - v, spec.row_keep)
    return u, v


@pytest.mark.parametrize("spec", SPECS, ids=str)
@pytest.mark.parametrize("scale", [0.0, 1e-300, 2.0**-25, 2.0**-20, 1.0])
@pytest.mark.parametrize("side", [0, 1])
def test_only_tiles_of_a_wide_range_are_swept(spec, scale, side):
    w = np.random.default_rng(3).random((spec.rows, spec.cols)) + 1.0
    w[(slice(None), 0) if side else (0, slice(None))] *= scale
    tile, budget, search = make_tile(w, spec, None, None, np.full(spec.rows, 7.0), np.full(spec.cols, 5.0))
    initialise_wide_duals(tile, budget, search)
    peaks = w.max(0 if side else 1)
    is_wide = peaks[peaks > 0].min(initial=np.inf) < peaks.max() * 2.0**-24
    if is_wide and spec.row_keep < spec.cols and spec.col_keep < spec.rows:
        u, v = slow_sweeps(w, spec)
        assert np.array_equal(tile.u, u)
        assert np.array_equal(tile.v, v)
    else:
        assert (tile.u == 7.0).all()
        assert (tile.v == 5.0).all()
