"""`Exact` against HiGHS, enumeration and its own duals."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st
from support.oracles import best_scores, check_best, four_by_four, kept_score, unproved_tiles
from support.strategies import (
    EXACT_TILES,
    LARGE_TILES,
    LOOSE_TILES,
    SCORES,
    column_scales,
    forced_panels,
    loose,
    panels,
    scores_of,
    slow_sizes_marked,
)

from masksmith._errors import InfeasibleError
from masksmith._panels import FREE, KEEP, Panel, from_tiles, to_tiles
from masksmith.patterns import TileSpec
from masksmith.solvers.exact import Exact

CALM = settings(deadline=None, max_examples=60, suppress_health_check=list(HealthCheck))
ALL_TILES = [*EXACT_TILES, *map(loose, EXACT_TILES), *LOOSE_TILES]
solve = Exact()


def name_of(tile: TileSpec) -> str:
    return f"{'<=' if tile.at_most else ''}{tile.row_keep}:{tile.cols} x {tile.col_keep}:{tile.rows}"


def proved(panel: Panel):
    answer = solve(panel)
    assert unproved_tiles(panel, answer) == 0
    return answer


@pytest.mark.parametrize("tile", slow_sizes_marked(ALL_TILES), ids=name_of)
def test_duals_prove_every_tile_exactly(tile):
    for seed, name in enumerate(SCORES):
        proved(Panel(scores_of(name, seed, tile, 4, 5), tile))


@pytest.mark.slow
@pytest.mark.parametrize("tile", [*ALL_TILES, *LARGE_TILES, *map(loose, LARGE_TILES)], ids=name_of)
def test_duals_prove_many_tiles_exactly(tile):
    down = 2 if tile.rows == 64 else 20
    for seed, name in enumerate(SCORES):
        proved(Panel(scores_of(name, 100 + seed, tile, down, 10), tile))


@pytest.mark.slow
@pytest.mark.parametrize("name", SCORES)
def test_large_tiles(name):
    for tile in (LARGE_TILES[1], loose(LARGE_TILES[2])):
        proved(Panel(scores_of(name, 3, tile, 1, 2), tile))


@pytest.mark.parametrize("tile", slow_sizes_marked(ALL_TILES), ids=name_of)
def test_as_good_as_linear_programming(tile):
    for seed, name in enumerate(("gaussian", "cauchy squared", "binary", "mostly zero", "additive")):
        panel = Panel(scores_of(name, seed, tile, 1, 2), tile)
        check_best(panel, solve(panel))


@pytest.mark.parametrize("at_most", [False, True])
@pytest.mark.parametrize("n", [1, 2, 3])
def test_as_good_as_every_mask_of_four_by_four(n, at_most):
    tile, masks = TileSpec(4, 4, n, n, at_most), four_by_four(n, at_most)
    for seed, name in enumerate(SCORES):
        panel = Panel(scores_of(name, seed, tile, 4, 5), tile)
        scores = to_tiles(panel.scores, tile).astype(np.float64).reshape(-1, 16)
        best = (scores @ masks.reshape(-1, 16).T.astype(np.float64)).max(1)
        np.testing.assert_allclose(kept_score(panel, proved(panel)), best, rtol=1e-12)


@pytest.mark.parametrize(
    "tile",
    [TileSpec(8, 8, 4, 4), pytest.param(TileSpec(7, 7, 3, 3, True), marks=pytest.mark.slow), TileSpec(16, 16, 8, 8)],
    ids=name_of,
)
def test_float64_scores(tile):
    for seed, name in enumerate(SCORES):
        scores = scores_of(name, seed, tile, 4, 5, np.float64)
        unproved = unproved_tiles(Panel(scores, tile), solve(Panel(scores, tile)))
        assert unproved == 0 or name == "additive", name


@pytest.mark.parametrize("scale", [1e-310, 1e-300, 1e300])
def test_float64_at_the_ends_of_its_range(scale):
    tile = TileSpec(8, 8, 4, 4)
    proved(Panel(scores_of("gaussian", 0, tile, 4, 5, np.float64) * scale, tile))


@pytest.mark.parametrize("tile", [TileSpec(4, 4, 2, 2), TileSpec(8, 8, 4, 4), TileSpec(8, 8, 4, 4, True)], ids=name_of)
def test_beyond_float64_the_mask_is_still_good(tile):
    scores = np.float32(column_scales(np.random.default_rng(0), (4 * tile.rows, 5 * tile.cols), tile))
    panel = Panel(scores, tile)
    answer = solve(panel)
    unproved_tiles(panel, answer)
    check_best(panel, answer)


@pytest.mark.parametrize(
    "tile",
    slow_sizes_marked([*EXACT_TILES[:5:4], TileSpec(12, 12, 5, 5), TileSpec(16, 16, 8, 8), TileSpec(8, 16, 8, 4)]),
    ids=name_of,
)
@pytest.mark.parametrize("limits", [False, True])
def test_columns_of_many_magnitudes_are_proved_and_do_not_heed_their_neighbours(tile, limits):
    tile, rng = loose(tile) if limits else tile, np.random.default_rng(1)
    shape = (6 * tile.rows, 7 * tile.cols)
    scores = np.float32(column_scales(rng, shape, tile))
    answer = solve(Panel(scores, tile))
    assert unproved_tiles(Panel(scores, tile), answer) <= 4
    mixed = np.float32(np.abs(rng.normal(size=shape)))
    mixed[: tile.rows], mixed[:, : tile.cols] = scores[: tile.rows], scores[:, : tile.cols]
    mask = solve(Panel(mixed, tile)).mask
    np.testing.assert_array_equal(mask[: tile.rows], answer.mask[: tile.rows])
    np.testing.assert_array_equal(mask[:, : tile.cols], answer.mask[:, : tile.cols])


@pytest.mark.parametrize("limits", [False, True])
def test_forced_entries_among_columns_of_many_magnitudes(limits):
    tile, rng = TileSpec(8, 8, 4, 4, limits), np.random.default_rng(2)
    scores = np.float32(column_scales(rng, (32, 40), tile))
    panel = Panel(scores, tile, -np.int8(rng.random(scores.shape) < 0.03))
    answer = solve(panel)
    assert not answer.mask[panel.forced == -1].any()
    check_best(panel, answer)


@CALM
@given(panels())
def test_any_tile(panel):
    proved(panel)


@CALM
@given(forced_panels())
def test_forced_entries(panel):
    best = best_scores(panel)
    try:
        answer = solve(panel)
    except InfeasibleError as error:
        first = error.tile[0] * panel.across + error.tile[1]
        assert best[first] is None
    else:
        assert None not in best
        assert unproved_tiles(panel, answer) == 0
        check_best(panel, answer)


@pytest.mark.parametrize("tile", [TileSpec(4, 4, 1, 1), TileSpec(4, 4, 1, 1, at_most=True)], ids=name_of)
def test_lines_whose_kept_entries_are_all_forced_are_proved_in_float64(tile):
    """Their duals have a bound on one side only, and must not be on it: `w - (u + v)` would be off by a rounding."""
    scores = np.random.default_rng(0).random((400, 400))
    forced = np.full(scores.shape, FREE, np.int8)
    forced[1::4, 3::4] = KEEP
    proved(Panel(scores, tile, forced))


def test_forced_entries_that_only_a_flow_shows_to_be_impossible():
    tile, forced = TileSpec(4, 4, 2, 2), np.zeros((8, 8), np.int8)
    forced[4:7, 4:6] = -1  # three rows need columns 6 and 7, which take two each
    with pytest.raises(InfeasibleError) as caught:
        solve(Panel(scores_of("gaussian", 0, tile, 2, 2), tile, forced))
    assert tuple(caught.value.tile) == (1, 1)


@pytest.mark.parametrize("tile", [TileSpec(8, 8, 4, 4), TileSpec(8, 8, 4, 4, True), TileSpec(7, 7, 3, 3)], ids=name_of)
@pytest.mark.parametrize("name", ["gaussian", "binary", pytest.param("mostly zero", marks=pytest.mark.slow)])
def test_tiles_do_not_see_their_neighbours(tile, name):
    panel = Panel(scores_of(name, 0, tile, 6, 7), tile)
    answer = solve(panel)
    order = np.random.default_rng(1).permutation(42)
    shuffled = from_tiles(to_tiles(panel.scores, tile)[order], 7, 6)
    other = solve(Panel(np.ascontiguousarray(shuffled), tile))
    np.testing.assert_array_equal(to_tiles(other.mask, tile), to_tiles(answer.mask, tile)[order])
    for mine, theirs in ((answer.row_duals, other.row_duals), (answer.col_duals, other.col_duals)):
        np.testing.assert_array_equal(theirs.reshape(42, -1), mine.reshape(42, -1)[order])
    alone = solve(Panel(np.ascontiguousarray(panel.scores[: tile.rows, : tile.cols]), tile))
    np.testing.assert_array_equal(alone.mask, answer.mask[: tile.rows, : tile.cols])


def test_threads_do_not_matter():
    tile = TileSpec(8, 8, 4, 4)
    batch = [Panel(scores_of(name, seed, tile, 4, 5), tile) for seed, name in enumerate(SCORES)]
    with ThreadPoolExecutor(4) as pool:
        for panel, answer in zip(batch, pool.map(solve, batch), strict=True):
            np.testing.assert_array_equal(answer.mask, solve(panel).mask)


@pytest.mark.parametrize("at_most", [False, True])
@pytest.mark.parametrize("noise", [0.0, 0.01, 1.0])
def test_warm_start(at_most, noise):
    tile = TileSpec(16, 16, 8, 8, at_most)
    for name in SCORES:
        before = scores_of(name, 0, tile, 2, 3)
        first = solve(Panel(before, tile))
        after = before * np.float32(1 + noise) + np.float32(noise) * scores_of("gaussian", 1, tile, 2, 3)
        duals = first.row_duals, first.col_duals
        proved(Panel(after.astype(np.float32), tile, None, duals))


@pytest.mark.parametrize(
    "tile",
    [
        TileSpec(8, 8, 4, 4),
        TileSpec(16, 16, 8, 8),
        TileSpec(16, 16, 8, 8, True),
        pytest.param(TileSpec(12, 12, 5, 5, True), marks=pytest.mark.slow),
    ],
    ids=name_of,
)
def test_any_warm_start_will_do(tile):
    panel = Panel(scores_of("gaussian", 0, tile), tile)
    for value in (np.nan, np.inf, -np.inf, 1e300, -3.0):
        duals = np.full((2, 3, tile.rows), value), np.full((2, 3, tile.cols), value)
        proved(replace(panel, start_duals=duals))


@pytest.mark.parametrize("tile", [TileSpec(4, 4, 2, 2, True), TileSpec(8, 8, 4, 4), TileSpec(4, 4, 1, 1)], ids=name_of)
def test_any_few_tiles_among_others_with_ties(tile):
    # What waves leave are any tiles in ascending order, some of them neighbours, rarely a multiple of 16.
    for seed in range(40):
        rng = np.random.default_rng(seed)
        scores = np.abs(rng.normal(size=(tile.rows, 33 * tile.cols))).astype(np.float32)
        for t in rng.choice(33, rng.integers(1, 12), replace=False):
            scores[:, t * tile.cols : (t + 1) * tile.cols] = rng.integers(0, 6, (tile.rows, tile.cols))
        proved(Panel(scores, tile))


@CALM
@given(panels(), st.integers(-20, 20))
def test_powers_of_two_change_nothing(panel, power):
    scaled = np.ldexp(panel.scores.astype(np.float64), power)
    plain = solve(replace(panel, scores=panel.scores.astype(np.float64)))
    np.testing.assert_array_equal(solve(replace(panel, scores=scaled)).mask, plain.mask)


@CALM
@given(panels())
def test_transposing_and_permuting_keep_the_value(panel):
    tile, rng = panel.tile, np.random.default_rng(0)
    value = kept_score(panel, solve(panel))
    cut = to_tiles(panel.scores, tile)
    turned = from_tiles(np.ascontiguousarray(cut.transpose(0, 2, 1)), panel.down, panel.across)
    back = TileSpec(tile.cols, tile.rows, tile.col_keep, tile.row_keep, tile.at_most)
    mirrored = Panel(np.ascontiguousarray(turned), back)
    mixed = cut[:, rng.permutation(tile.rows)][:, :, rng.permutation(tile.cols)]
    permuted = Panel(np.ascontiguousarray(from_tiles(mixed, panel.down, panel.across)), tile)
    for other in (mirrored, permuted):
        np.testing.assert_allclose(kept_score(other, solve(other)), value, rtol=1e-12)


@CALM
@given(
    panels(at_most=False, names=("gaussian", "integers", "mostly zero", "constant")), st.sampled_from([0.5, 1.0, 8.0])
)
def test_a_constant_added_keeps_exact_masks_optimal(panel, constant):
    scores = panel.scores.astype(np.float64)
    shifted = Panel(scores + constant, panel.tile)
    value = kept_score(replace(panel, scores=scores), solve(shifted))
    np.testing.assert_allclose(value, kept_score(panel, solve(panel)), rtol=1e-12)


@CALM
@given(panels(at_most=False))
def test_limits_allow_at_least_as_much(panel):
    free = replace(panel, tile=loose(panel.tile))
    exact, most = kept_score(panel, solve(panel)), kept_score(free, solve(free))
    assert (most >= exact * (1 - 1e-12)).all()


def test_a_part_of_a_larger_matrix():
    tile = TileSpec(8, 8, 4, 4)
    whole = scores_of("gaussian", 0, tile, 4, 6)
    part = proved(Panel(whole[8:24, 16:40], tile))
    np.testing.assert_array_equal(part.mask, solve(Panel(whole, tile)).mask[8:24, 16:40])


def test_refuses_free_columns():
    assert "top-k" in solve.refusal(TileSpec(1, 4, 2, 0), forced=False)
    assert solve.refusal(TileSpec(4, 4, 2, 2), forced=True) is None


PLAIN = """
import warnings
warnings.simplefilter("error")
import numpy as np
from masksmith._panels import Panel
from masksmith.solvers.exact import Exact
from support.oracles import unproved_tiles
from support.strategies import SCORES, scores_of
from masksmith.patterns import TileSpec
for tile in (TileSpec(4, 4, 2, 2), TileSpec(6, 6, 2, 2, True), TileSpec(3, 6, 4, 2)):
    for name in SCORES:
        panel = Panel(scores_of(name, 0, tile, 1, 2), tile)
        assert unproved_tiles(panel, Exact()(panel)) == 0, (tile, name)
"""


def test_runs_without_compiling():
    command = [sys.executable, "-c", PLAIN]
    environment = {"NUMBA_DISABLE_JIT": "1", "PYTHONPATH": str(__import__("pathlib").Path(__file__).parents[1])}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
