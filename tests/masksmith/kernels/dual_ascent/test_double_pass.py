"""The float64 pass for tiles of a wide range, and its vector operations, against plain loops and fractions."""

from __future__ import annotations

import numpy as np
import pytest
from support.naive_lanes import LANES, bits, line, to_lanes
from support.naive_tiles import check_allowed, objective, violations
from support.oracles import best_scores

from masksmith._panels import Panel, PanelAnswer
from masksmith.kernels.dual_ascent.double_pass import (
    WIDE,
    compile_double_pass,
    double_threshold_update,
    lanes_with_wide_range,
    threshold_mask,
)
from masksmith.kernels.jit import jit
from masksmith.patterns import TileSpec
from masksmith.solvers.exact import kernel_budget

SIZE, ROWS, COLS = 8, 5, 6


@jit
def wide_lanes(raw):
    """Intrinsics can only be called by kernels; sizes are literals."""
    return lanes_with_wide_range(raw, ROWS, COLS, SIZE)


@jit
def update(raw, lines, line_stride, entry_stride, cross_duals, own_duals, floor, keep, scratch):
    double_threshold_update(raw, lines, line_stride, entry_stride, cross_duals, own_duals, floor, keep, scratch, SIZE)


@jit
def write_mask(raw, u, v, dropped):
    threshold_mask(raw, u, v, dropped, ROWS, COLS, SIZE)


def random_tiles(seed, dtype=np.float32):
    """16 tiles, some of whose rows or columns are far smaller than others, or zero."""
    rng = np.random.default_rng(seed)
    tiles = rng.random((LANES, ROWS, COLS))
    for lane in range(LANES):
        factor = [1.0, 0.0, 2.0**-19, 2.0**-21, 1e-30, 1e-42][rng.integers(6)]
        tiles[(lane, 1, slice(None)) if lane % 2 else (lane, slice(None), 2)] *= factor
    return tiles.astype(dtype)


def spread_of(tiles):
    """Whether, in each tile, the largest scores of two rows or columns, zeros excepted, are far apart."""
    wide = []
    for tile in tiles:
        peaks = [side[side > 0] for side in (tile.max(0), tile.max(1))]
        wide.append(any(peak.size and peak.min() < peak.max() * peak.dtype.type(WIDE) for peak in peaks))
    return wide


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_lanes_of_a_wide_range(dtype):
    for seed in range(5):
        tiles = random_tiles(seed, dtype)
        tiles[seed] = 0.0
        assert wide_lanes(to_lanes(tiles, SIZE, -np.inf).reshape(-1)) == bits(spread_of(tiles))


@pytest.mark.parametrize("keep", [1, 3, 4])
@pytest.mark.parametrize("floor", [0.0, -np.inf])
@pytest.mark.parametrize("by_rows", [True, False])
def test_thresholds_lie_half_way(keep, floor, by_rows):
    tiles = random_tiles(keep)
    raw = np.full((SIZE * SIZE, LANES), -np.inf, np.float32)
    raw[: ROWS * SIZE] = to_lanes(tiles, SIZE, -np.inf)
    rng = np.random.default_rng(1)
    cross_duals, own_duals = rng.random((SIZE, LANES)), np.full((SIZE, LANES), np.nan)
    lines, line_stride, entry_stride = (ROWS, SIZE, 1) if by_rows else (COLS, 1, SIZE)
    args = (
        raw.reshape(-1),
        lines,
        line_stride,
        entry_stride,
        cross_duals.reshape(-1),
        own_duals.reshape(-1),
        floor,
        keep,
    )
    update(*args, np.empty(SIZE * LANES))
    for number in range(lines):
        rest = -np.sort(-(line(raw, number * line_stride, entry_stride, SIZE).astype(np.float64) - cross_duals), axis=0)
        expected = rest[keep] + 0.5 * (rest[keep - 1] - rest[keep])
        assert np.array_equal(own_duals[number], np.maximum(expected, floor))
    assert np.isnan(own_duals[lines:]).all()


def test_a_mask_keeps_what_reaches_its_duals():
    rng = np.random.default_rng(2)
    raw = rng.integers(0, 4, (ROWS, SIZE, LANES)).astype(np.float32)
    u, v = (rng.integers(-1, 3, (SIZE, LANES)).astype(float) for _ in range(2))
    dropped = np.full((ROWS, SIZE, LANES), 5, np.int32)
    write_mask(raw.reshape(-1), u.reshape(-1), v.reshape(-1), dropped.reshape(-1))
    assert np.array_equal(dropped[:, :COLS], np.where(raw[:, :COLS] - v[:COLS] >= u[:ROWS, None], 0, -1))
    assert (dropped[:, COLS:] == 5).all()


@pytest.mark.parametrize("at_most", [False, True])
@pytest.mark.parametrize("across", [1, 3, 17])
def test_solved_tiles_are_proved_and_the_others_are_listed(at_most, across):
    spec, rng = TileSpec(8, 8, 4, 4, at_most), np.random.default_rng(across)
    scores = np.abs(rng.standard_normal((16, 8 * across))).astype(np.float32)
    scores[:8] *= np.tile(2.0 ** rng.integers(-60, 0, 8), across).astype(np.float32)
    scores[8:, :8] = 1.0  # ties and no wide range: stays unsolved
    panel, count = Panel(scores, spec), 2 * across
    mask, u, v = np.zeros(scores.shape, np.bool_), np.zeros((count, 8)), np.zeros((count, 8))
    order = np.arange(count)
    unsolved_tiles = compile_double_pass(8, 8, 8)(scores, kernel_budget(spec), 12, order, count, mask, u, v)
    unsolved = order[:unsolved_tiles].tolist()
    assert unsolved == sorted(set(unsolved))
    tiles, _ = panel.tiles()
    narrow = [index for index, wide in enumerate(spread_of(tiles)) if not wide]
    assert set(narrow) <= set(unsolved)
    assert len(unsolved) < count
    solved = [index for index in range(count) if index not in unsolved]
    for index in solved:
        part = tuple(slice(8 * k, 8 * k + 8) for k in divmod(index, across))
        one = Panel(scores[part], spec)
        answer = PanelAnswer(mask[part], u[index].reshape(1, 1, 8), v[index].reshape(1, 1, 8))
        check_allowed(one, answer)
        assert violations(one, answer) == [0]
        assert objective(one, answer) == pytest.approx(best_scores(one), rel=1e-6)
    assert not u[unsolved].any()
    assert not v[unsolved].any()
