"""Panels of tiles from cold and ready starts, and polishing, against HiGHS and fractions."""

import numpy as np
import pytest
from support.kernel_tiles import SPECS, any_legal_mask, make_tile, mask_of, satisfies_slackness
from support.naive_tiles import AWKWARD, awkward, best, check_allowed, objective, some_forced, violations

from masksmith._panels import Panel, PanelAnswer
from masksmith.kernels.shortest_paths.negative_cycles import polish
from masksmith.kernels.shortest_paths.panel import polish_panel, solve_panel
from masksmith.solvers.exact import kernel_budget

NO_FORCED = np.zeros((0, 0), np.int8)


def solve(scores, spec, forced=NO_FORCED):
    """Solve every tile of a panel from zero duals; return the panel, its answer, and the first infeasible tile."""
    panel = Panel(scores, spec, forced if forced.size else None)
    shape, budget = (panel.down, panel.across), kernel_budget(spec)
    answer = PanelAnswer(np.zeros(scores.shape, np.bool_), np.zeros((*shape, spec.rows)), np.zeros((*shape, spec.cols)))
    order, ready = np.arange(panel.down * panel.across), np.zeros(panel.down * panel.across, np.uint8)
    duals = answer.row_duals, answer.col_duals
    infeasible, unproved = solve_panel(scores, forced, budget, order, ready, answer.mask, *duals)
    if infeasible < 0 and unproved:
        polish_panel(scores, forced, budget, order[:unproved], answer.mask, *duals)
    return panel, answer, infeasible


@pytest.mark.parametrize("spec", SPECS, ids=str)
@pytest.mark.parametrize("kind", AWKWARD)
def test_every_tile_is_solved_and_proved(spec, kind):
    panel, answer, infeasible = solve(awkward(kind, (2 * spec.rows, 2 * spec.cols)), spec)
    assert infeasible == -1
    check_allowed(panel, answer)
    assert not any(violations(panel, answer))
    tiles, _ = panel.tiles()
    np.testing.assert_allclose(objective(panel, answer), [best(tile, spec) for tile in tiles], rtol=1e-6)


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_forced_entries_hold_or_the_first_infeasible_tile_is_named(spec):
    for seed in range(6):
        scores = awkward("ties", (spec.rows, 3 * spec.cols), seed)
        forced = some_forced(scores.shape, seed, 0.3)
        panel, answer, infeasible = solve(scores, spec, forced)
        tiles, codes = panel.tiles()
        optima = [best(tile, spec, code) for tile, code in zip(tiles, codes, strict=True)]
        assert infeasible == (optima.index(None) if None in optima else -1)
        if infeasible < 0:
            check_allowed(panel, answer)
            assert not any(violations(panel, answer))
            assert objective(panel, answer) == optima


def test_scores_near_the_largest_double_do_not_overflow():
    spec = SPECS[0]
    scores = awkward("ties", (4, 8)).astype(np.float64) * 2.0**1021
    panel, answer, infeasible = solve(scores, spec)
    assert infeasible == -1
    assert np.isfinite(answer.row_duals).all()
    assert np.isfinite(answer.col_duals).all()
    assert not any(violations(panel, answer))


def test_only_the_listed_tiles_are_touched_and_ready_ones_start_from_their_mask():
    spec = SPECS[0]
    scores = awkward("ties", (4, 12))
    mask, budget = np.tile(any_legal_mask(spec), (1, 3)), kernel_budget(spec)
    u, v = np.zeros((1, 3, 4)), np.zeros((1, 3, 4))
    # With scores below every dual sum of dropped entries and above those of kept ones the mask must stay.
    scores[:, 4:8] = np.where(mask[:, 4:8], 3.0, 1.0)
    u[0, 1], order = 2.0, np.array([1])
    before = mask.copy()
    ready = np.array([0, 1, 0], np.uint8)
    assert solve_panel(scores, NO_FORCED, budget, order, ready, mask, u, v) == (-1, 0)
    assert np.array_equal(mask, before)
    assert u.tolist() == [[[0.0] * 4, [2.0] * 4, [0.0] * 4]]
    assert not v.any()


@pytest.mark.parametrize("spec", SPECS, ids=str)
@pytest.mark.parametrize("kind", ["ties", "binary", "gauss", "wide", "zeros"])
def test_polish_says_whether_the_duals_prove_the_mask(spec, kind):
    proved = 0
    for seed in range(4):
        w = awkward(kind, (spec.rows, spec.cols), seed).astype(np.float64)
        mask = any_legal_mask(spec)
        tile, budget, search = make_tile(w, spec, mask)
        answer = polish(tile, budget, search)
        after = mask_of(tile, budget)
        check_allowed(*as_panel(w, spec, after, tile))
        assert answer == satisfies_slackness(tile, budget)
        assert w[after].sum() >= w[mask].sum() * (1 - 1e-12)
        if answer:
            assert w[after].sum() == pytest.approx(best(w, spec), rel=1e-6, abs=1e-9)
        proved += answer
    assert proved or kind in ("gauss", "wide", "ties")


def as_panel(w, spec, mask, tile):
    return Panel(w, spec), PanelAnswer(mask, tile.u.reshape(1, 1, -1), tile.v.reshape(1, 1, -1))


def test_polish_cancels_a_single_negative_cycle():
    spec = SPECS[0]
    mask = np.kron(np.eye(2, dtype=bool), np.ones((2, 2), bool))
    w = np.where(mask, 2.0, 1.0)
    wrong = mask.copy()
    wrong[np.ix_([0, 2], [0, 2])] = ~wrong[np.ix_([0, 2], [0, 2])]
    tile, budget, search = make_tile(w, spec, wrong)
    assert polish(tile, budget, search)
    assert np.array_equal(mask_of(tile, budget), mask)
