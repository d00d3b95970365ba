"""Duals under at-most fill, 16 tiles at a time, against numpy on one line or lane."""

import numpy as np
import pytest
from support.naive_lanes import LANES, bits

from masksmith.kernels.dual_ascent.at_most import (
    count_kept,
    lower_outer_dual,
    mark_full,
    shift_duals,
    valid_dual_lanes,
)
from masksmith.kernels.tile import Budget

ROWS, COLS, ROW_SIZE, COL_SIZE = 5, 6, 8, 8
BUDGET = Budget(ROWS, COLS, 3, 2, True, COLS + 1)


def integers(rng, length, low, high):
    return rng.integers(low, high, (length, LANES)).astype(np.int32)


@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
def test_kept_entries_are_counted(share):
    rng = np.random.default_rng(0)
    dropped = np.where(rng.random((COL_SIZE, ROW_SIZE, LANES)) < share, 0, -1).astype(np.int32)
    row_used, col_used = integers(rng, COL_SIZE, 0, 9), integers(rng, ROW_SIZE, 0, 9)
    count_kept(dropped.reshape(-1), ROWS, COLS, ROW_SIZE, row_used.reshape(-1), col_used.reshape(-1))
    kept = dropped[:ROWS, :COLS] == 0
    assert np.array_equal(row_used[:ROWS], kept.sum(1))
    assert np.array_equal(col_used[:COLS], kept.sum(0))
    assert not row_used[ROWS:].any()
    assert not col_used[COLS:].any()


def test_lines_with_a_dual_above_its_floor_count_as_full():
    rng = np.random.default_rng(1)
    y, floors, used = integers(rng, 8, -1, 2), integers(rng, 8, -1, 2), integers(rng, 8, 0, 4)
    expected = np.where(-y != floors, 4, used)
    expected[COLS:] = used[COLS:]
    mark_full(y.reshape(-1), floors.reshape(-1), used.reshape(-1), COLS, 4)
    assert np.array_equal(used, expected)


def slow_lower(u, y, outer, row_floor, col_floor, rows_full, cols_full):
    """Clamp the duals of one tile; column duals are negated in y."""
    outer = min([outer, *(u - row_floor), *(y + col_floor)[~cols_full]])
    u = np.where(rows_full, u, np.minimum(u, outer + row_floor))
    return u, np.minimum(y, outer - col_floor), outer


@pytest.mark.parametrize("spread", [1, 2, 1 << 20])
def test_duals_are_clamped_to_the_outer_dual(spread):
    for seed in range(8):
        rng = np.random.default_rng(seed)
        u, y, outer = integers(rng, 8, 0, spread + 1), integers(rng, 8, 0, spread + 1), integers(rng, 1, 0, 2)[0]
        row_floor, col_floor = integers(rng, 8, -spread, 1), integers(rng, 8, -spread, 1)
        row_used, col_used = integers(rng, 8, 2, 4), integers(rng, 8, 1, 3)
        before = (u.copy(), y.copy(), outer.copy())
        rows_full, cols_full = row_used[:ROWS] >= BUDGET.row_keep, col_used[:COLS] >= BUDGET.col_keep
        inputs = (u[:ROWS], y[:COLS], outer, row_floor[:ROWS], col_floor[:COLS], rows_full, cols_full)
        expected = [slow_lower(*(array.T[lane] for array in inputs)) for lane in range(LANES)]
        flat = [array.reshape(-1) for array in (u, y, outer, row_floor, col_floor, row_used, col_used)]
        unchanged = lower_outer_dual(BUDGET, *flat)
        for lane in range(LANES):
            assert np.array_equal(u[:ROWS, lane], expected[lane][0])
            assert np.array_equal(y[:COLS, lane], expected[lane][1])
            assert outer[lane] == expected[lane][2]
        same = [(u == before[0])[:, lane].all() and (y == before[1])[:, lane].all() for lane in range(LANES)]
        assert unchanged == bits(same & (outer == before[2]))


def test_valid_duals_are_non_negative_and_zero_on_lines_that_are_not_full():
    rng = np.random.default_rng(2)
    duals = rng.choice([0.0, -0.0, 5e-324, 1e300], (8, LANES))
    duals[:, ::3] = 0.0
    duals[2, 4] = -5e-324
    used = integers(rng, 8, 2, 4)
    used[:, 1] = 3
    valid = [
        all(x >= 0.0 and (x == 0.0 or count >= 3) for x, count in zip(duals[:5, lane], used[:5, lane], strict=True))
        for lane in range(LANES)
    ]
    assert any(valid)
    assert not all(valid)
    assert valid_dual_lanes(duals.reshape(-1), used.reshape(-1), 5, 3) == bits(valid)


def test_duals_are_shifted_so_that_the_smallest_column_dual_is_zero():
    rng = np.random.default_rng(3)
    u, v = integers(rng, 8, -2, 9).astype(float), integers(rng, 8, -4, 9).astype(float)
    low, sums = v[:COLS].min(0), u[:ROWS, None] + v[None, :COLS]
    expected = bits((u[:ROWS] + low >= 0).all(0))
    assert shift_duals(u.reshape(-1), v.reshape(-1), ROWS, COLS) == expected
    assert 0 < expected < (1 << LANES) - 1
    assert (v[:COLS].min(0) == 0).all()
    assert np.array_equal(u[:ROWS, None] + v[None, :COLS], sums)
