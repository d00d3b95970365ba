"""The integer pass, dual for dual, against the same sweeps in Python integers; and its helpers."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from support import naive_lanes as slow
from support.naive_tiles import awkward
from support.oracles import check_best, unproved_tiles

from masksmith._panels import Panel, PanelAnswer, from_tiles, to_tiles
from masksmith.kernels.dual_ascent.integer_pass import (
    LANES,
    NO_FLOOR,
    SIZES,
    _equalise_minima,
    _quantise_duals,
    aligned_zeros,
    compact_unsolved,
    compile_integer_pass,
    locate,
    network_size,
    new_starts,
)
from masksmith.kernels.dual_ascent.simd.lanes import MAX_DUAL
from masksmith.patterns import TileSpec
from masksmith.solvers.exact import kernel_budget

SIZE, KEEP = 8, 4
KINDS = ("gauss", "ties", "binary", "zeros", "constant", "one-hot", "additive", "wide", "tiny", "columns")


@pytest.mark.parametrize("length", range(1, 65))
def test_a_network_is_the_smallest_that_holds_a_line(length):
    assert network_size(length) == min(size for size in SIZES if size >= length)


@pytest.mark.parametrize("count", [1, 16, 100])
def test_zeros_begin_at_a_cache_line(count):
    zeros = aligned_zeros(count)
    assert zeros.ctypes.data % 64 == 0
    assert zeros.tolist() == [0] * count


@pytest.mark.parametrize("across", [1, 5, 16, 40])
@pytest.mark.parametrize("gaps", [False, True])
def test_tiles_are_located(across, gaps):
    scores, mask = np.zeros((3 * 4, across * 8), np.float32), np.zeros((3 * 4, across * 8), np.bool_)
    order = np.flatnonzero(np.random.default_rng(0).random(3 * across) < (0.6 if gaps else 2.0))
    starts = new_starts()
    for first in range(0, len(order), LANES):
        locate(starts, order, first, len(order), scores, mask, 4, 8)
        for lane in range(LANES):
            tile = order[min(first + lane, len(order) - 1)]
            offset = (tile // across * 4) * across * 8 + tile % across * 8
            lane_values = [array[lane] for array in starts[:5]]
            assert lane_values == [tile, offset, offset, 4 * tile, 8 * tile]
        assert starts.stride.tolist() == [across * 8] * 2


@pytest.mark.parametrize("done", [0, (1 << LANES) - 1, 0b1010_0000_1111_0001])
@pytest.mark.parametrize("count", [3, 16, 20])
def test_unsolved_tiles_move_to_the_front(done, count):
    order, first = np.arange(100, 100 + count), max(0, count - LANES)
    unsolved_tiles = [100 + first + lane for lane in range(min(LANES, count - first)) if not done >> lane & 1]
    assert compact_unsolved(order, first, count, done, 0) == len(unsolved_tiles)
    assert order[: len(unsolved_tiles)].tolist() == unsolved_tiles


@pytest.mark.parametrize("non_negative", [False, True])
def test_initial_duals_are_rounded_and_clipped(non_negative):
    raw = np.random.default_rng(1).choice([0.0, -0.0, 0.5, 1.5, -2.5, 1e9, -1e9, 1e300, 3.25], (8, LANES))
    scale, rescale = np.full(LANES, 2.0, np.float32), np.full(LANES, 0.5, np.float32)
    quantised = np.full((8, LANES), 77, np.int32)
    _quantise_duals(raw.reshape(-1), scale, rescale, non_negative, 6, quantised.reshape(-1))
    expected = np.clip(np.rint(raw), 0 if non_negative else -(MAX_DUAL // 2), MAX_DUAL // 2)
    assert np.array_equal(quantised[:6], expected[:6])
    assert (quantised[6:] == 77).all()


def slow_equalise(u, v):
    """Shift the duals of each lane to equal minima; return the lanes where it is not negative."""
    low_u, low_v = u.min(0), v.min(0)
    return u + ((low_v - low_u) >> 1), v - ((low_v - low_u) >> 1), slow.bits(low_u + low_v >= 0)


def test_minima_are_equalised():
    rng = np.random.default_rng(2)
    u, v = rng.integers(-9, 9, (5, LANES)), rng.integers(-9, 9, (6, LANES))
    flat_u, flat_v = (duals.astype(np.int32).reshape(-1) for duals in (u, v))
    expected_u, expected_v, lanes = slow_equalise(u, v)
    assert _equalise_minima(flat_u, flat_v, 5, 6) == lanes
    assert np.array_equal(flat_u.reshape(-1, LANES), expected_u)
    assert np.array_equal(flat_v.reshape(-1, LANES), expected_v)


def slow_round(tiles, sweeps, v, non_negative, at_most):
    """One round for 16 tiles: masks, duals in units, and units. `v` holds the initial column duals, in scores."""
    peaks = [Fraction(float(tile.max())) for tile in tiles]
    exponents = [next((e for e in range(-200, 1075) if p * Fraction(2) ** e >= 1 << 26), 1074) if p else 0
                 for p in peaks]  # fmt: skip
    units = [Fraction(2) ** -exponent for exponent in exponents]
    x = np.array([[[Fraction(float(w)) // unit for w in row] for row in tile]
                  for tile, unit in zip(tiles, units, strict=True)], dtype=np.int64)  # fmt: skip
    x = slow.to_lanes(x, SIZE, 0)
    v = np.array([[round(Fraction(d) / unit) for d in tile] for tile, unit in zip(v.tolist(), units, strict=True)]).T
    v, u = np.clip(v, 0 if non_negative else -(MAX_DUAL // 2), MAX_DUAL // 2), np.zeros((SIZE, LANES), np.int64)
    floors = np.full((SIZE, LANES), 0 if non_negative else NO_FLOOR)
    for sweep in range(sweeps):
        relax = 0 < sweep < sweeps - 1
        u = slow.threshold_update(x, SIZE, SIZE, 1, v, u, floors, KEEP, False, SIZE)
        v = slow.threshold_update(x, SIZE, 1, SIZE, u, v, floors, KEEP, relax, SIZE)
    u = slow.threshold_update(x, SIZE, SIZE, 1, v, u, floors, KEEP, False, SIZE)
    solved = slow.balanced(x, SIZE, 1, SIZE, u, v, floors, KEEP, SIZE, MAX_DUAL)
    if non_negative:
        solved &= slow.balanced(x, SIZE, SIZE, 1, v, u, floors, KEEP, SIZE, MAX_DUAL)
    elif at_most:
        u, v, lanes = slow_equalise(u, v)
        solved &= lanes
    mask = x.reshape(SIZE, SIZE, LANES) >= u[:, None] + v[None]
    return mask.transpose(2, 0, 1), *(d.T * np.array(units, float)[:, None] for d in (u, v)), solved


def run(scores, spec, rounds, warm=False, non_negative=False, col_duals=None):
    """Run the compiled pass; return the answer and the list of unsolved tiles."""
    panel = Panel(scores, spec)
    count = panel.down * panel.across
    mask, u, v = np.zeros(scores.shape, np.bool_), np.zeros((count, SIZE)), np.zeros((count, SIZE))
    v[:] = 0 if col_duals is None else col_duals
    order = np.arange(count)
    compiled = compile_integer_pass(SIZE, SIZE, True, True, SIZE, SIZE)
    unsolved_tiles = compiled(
        scores, kernel_budget(spec), np.array(rounds), warm, non_negative, order, count, mask, u, v
    )
    shape = (panel.down, panel.across, SIZE)
    return panel, PanelAnswer(mask, u.reshape(shape), v.reshape(shape)), order[:unsolved_tiles].tolist()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("at_most", "non_negative"), [(False, False), (True, False), (True, True)])
@pytest.mark.parametrize("warm", [False, True])
def test_one_round_is_that_of_the_slow_twin(kind, at_most, non_negative, warm):
    spec, scores = TileSpec(SIZE, SIZE, KEEP, KEEP, at_most), awkward(kind, (4 * SIZE, 5 * SIZE), 3)
    start = np.round(np.random.default_rng(0).random((20, SIZE)) * float(scores.max()), 3) if warm else None
    panel, answer, unsolved = run(scores, spec, [4], warm, non_negative, start)
    tiles = to_tiles(panel.scores, spec)
    expected = []
    for first in range(0, 20, LANES):
        lanes = np.minimum(np.arange(first, first + LANES), 19)
        initial = start[lanes] if warm else np.zeros((LANES, SIZE))
        mask, u, v, solved = slow_round(tiles[lanes], 4, initial, non_negative, at_most)
        part = slice(first, min(first + LANES, 20))
        size = part.stop - first
        assert np.array_equal(to_tiles(answer.mask, spec)[part], mask[:size])
        assert np.array_equal(answer.row_duals.reshape(20, SIZE)[part], u[:size])
        assert np.array_equal(answer.col_duals.reshape(20, SIZE)[part], v[:size])
        expected += [first + lane for lane in range(size) if not solved >> lane & 1]
    assert unsolved == expected


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("at_most", [False, True])
def test_solved_tiles_are_proved_whatever_their_neighbours_are(kind, at_most):
    spec, scores = TileSpec(SIZE, SIZE, KEEP, KEEP, at_most), awkward(kind, (4 * SIZE, 5 * SIZE), 4)
    _, answer, unsolved = run(scores, spec, [4, 10, 16])
    tiles, masks = to_tiles(scores, spec), to_tiles(answer.mask, spec)
    for index in sorted(set(range(20)) - set(unsolved)):
        one = Panel(tiles[index], spec)
        duals = (d.reshape(20, 1, 1, SIZE)[index] for d in (answer.row_duals, answer.col_duals))
        alone = PanelAnswer(masks[index], *duals)
        assert unproved_tiles(one, alone) == 0
        check_best(one, alone)
    order = np.random.default_rng(5).permutation(20)
    _, moved, unsolved_tiles = run(np.ascontiguousarray(from_tiles(tiles[order], 4, 5)), spec, [4, 10, 16])
    assert sorted(order[unsolved_tiles].tolist()) == unsolved
    assert np.array_equal(to_tiles(moved.mask, spec), masks[order])
    assert np.array_equal(moved.col_duals.reshape(20, SIZE), answer.col_duals.reshape(20, SIZE)[order])
