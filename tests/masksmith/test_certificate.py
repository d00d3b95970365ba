"""The checker, against exact rational arithmetic."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from support.strategies import slow_sizes_marked

import masksmith as ms
from masksmith._certify import NO_FORCED, PanelCertificate, certify_panel
from masksmith._panels import DROP, KEEP, Panel, PanelAnswer
from masksmith._solution import Certificate
from masksmith.kernels.certificate.tiles import certify
from masksmith.patterns import TileSpec
from masksmith.solvers.exact import Exact


def exact_violation(panel: Panel, answer: PanelAnswer, i: int, j: int) -> Fraction:
    """The violation of one tile as a rational number, straight from the formula."""
    tile = panel.tile
    rows, cols = slice(i * tile.rows, (i + 1) * tile.rows), slice(j * tile.cols, (j + 1) * tile.cols)
    scores, mask = panel.scores[rows, cols], answer.mask[rows, cols]
    forced = np.zeros(mask.shape) if panel.forced is None else panel.forced[rows, cols]
    u, v = ([Fraction(float(x)) for x in duals[i, j]] for duals in (answer.row_duals, answer.col_duals))
    if tile.at_most:
        u, v = [max(x, Fraction(0)) for x in u], [max(x, Fraction(0)) for x in v]
    total = Fraction(0)
    for r in range(tile.rows):
        for c in range(tile.cols):
            rest = Fraction(float(scores[r, c])) - u[r] - v[c]
            if not forced[r, c]:
                total += max(Fraction(0), -rest if mask[r, c] else rest)
    for price, used in zip(u, mask.sum(axis=1), strict=True):
        total += price * max(0, tile.row_keep - int(used))
    for price, used in zip(v, mask.sum(axis=0), strict=True):
        total += price * max(0, tile.col_keep - int(used))
    return total


def random_case(
    seed: int, tile: TileSpec, down: int = 2, across: int = 3, *, forced: bool = False
) -> tuple[Panel, PanelAnswer]:
    """Scores, a rotated mask and arbitrary duals; integers, so that ties are common."""
    rng = np.random.default_rng(seed)
    shape = (down * tile.rows, across * tile.cols)
    scores = rng.integers(0, 6, shape).astype(rng.choice([np.float32, np.float64]))
    i, j = np.indices(shape)
    mask = (i * tile.row_keep - j) % tile.cols < tile.row_keep
    marks = rng.choice(np.array([DROP, 0, KEEP], np.int8), shape) if forced else None
    u, v = (rng.integers(-2 * (not tile.at_most), 4, (down, across, k)).astype(float) for k in (tile.rows, tile.cols))
    return Panel(scores, tile, marks), PanelAnswer(mask, u, v)


def check(panel: Panel, answer: PanelAnswer) -> PanelCertificate:
    certificate = certify_panel(panel, answer)
    for i in range(panel.down):
        for j in range(panel.across):
            truth = exact_violation(panel, answer, i, j)
            computed = Fraction(float(certificate.violation[i, j]))
            assert computed >= truth
            assert (computed == 0) == (truth == 0)
            assert float(computed - truth) <= 1e-12 * max(1.0, float(truth))
    return certificate


SIZES = [(4, 4, 2, 2), (8, 8, 4, 4), (16, 16, 8, 8), (5, 5, 2, 2), (4, 8, 4, 2), (12, 12, 3, 3), (1, 1, 1, 1)]
TILES = [TileSpec(*size) for size in SIZES]


@pytest.mark.parametrize("tile", TILES, ids=str)
@pytest.mark.parametrize("at_most", [False, True])
@pytest.mark.parametrize("forced", [False, True])
def test_violation_is_never_too_small_and_exactly_zero_when_it_is(tile: TileSpec, at_most: bool, forced: bool) -> None:
    spec = TileSpec(tile.rows, tile.cols, tile.row_keep, tile.col_keep, at_most)
    for seed in range(5):
        check(*random_case(seed, spec, forced=forced))


@pytest.mark.parametrize("size", [(4, 2), (8, 3), (16, 8), (32, 16), (64, 32), (6, 2), (33, 16)], ids=str)
@pytest.mark.parametrize("at_most", [False, True])
def test_wide_panels_are_certified_likewise(size: tuple[int, int], at_most: bool) -> None:
    m, n = size
    check(*random_case(m, TileSpec(m, m, n, n, at_most), 1, 17 if m < 32 else 5))


@pytest.mark.parametrize(
    "tile",
    slow_sizes_marked([*TILES, TileSpec(4, 64, 16, 1), TileSpec(3, 6, 2, 1), TileSpec(32, 32, 16, 16)]),
    ids=str,
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("across", [1, 2, 3, 16, 17])
def test_the_fast_pass_says_what_the_slow_one_says(tile: TileSpec, dtype: type, across: int) -> None:
    rng = np.random.default_rng(across)
    scores = rng.integers(0, 9, (3 * tile.rows, across * tile.cols)).astype(np.float32)
    answer, panel = Exact()(Panel(scores, tile)), Panel(scores.astype(dtype), tile)
    fast, slow = certify_panel(panel, answer), certify_panel(panel, answer)
    everything = np.arange(3 * across)
    certify(
        panel.scores, answer.mask, NO_FORCED, answer.row_duals, answer.col_duals, tile.row_keep, tile.col_keep,
        tile.at_most, everything, slow.objective, slow.violation, slow.legal,
    )  # fmt: skip
    assert fast.objective.tobytes() == slow.objective.tobytes()
    assert (fast.violation == 0.0).all()
    assert (slow.violation == 0.0).all()
    assert fast.legal.all()
    assert slow.legal.all()


@pytest.mark.parametrize("spot", [(0, 0), (3, 67), (7, 131), (5, 135)])
@pytest.mark.parametrize("move", [-1, 1])
def test_the_fast_pass_sees_one_score_that_is_off_by_its_last_bit(spot: tuple[int, int], move: int) -> None:
    # Prices are u + v = 3 everywhere: kept entries may not lie below, dropped ones not above.
    tile = TileSpec(8, 8, 4, 4)
    i, j = np.indices((8, 136))
    mask, scores = (i + j) % 2 == 0, np.full((8, 136), 3.0)
    answer = PanelAnswer(mask, np.full((1, 17, 8), 1.0), np.full((1, 17, 8), 2.0))
    scores[spot] = np.nextafter(3.0, np.inf * move)
    computed = certify_panel(Panel(scores, tile), answer).violation[0]
    wrong = (move < 0) == mask[spot]
    assert np.flatnonzero(computed).tolist() == ([spot[1] // 8] if wrong else [])


@pytest.mark.parametrize("cols", [1, 3, 4, 8, 16, 33])
@pytest.mark.parametrize("at_most", [False, True])
@pytest.mark.parametrize("forced", [False, True])
def test_separable_tiles_are_certified_likewise(cols: int, at_most: bool, forced: bool) -> None:
    for seed in range(5):
        panel, answer = random_case(seed, TileSpec(1, cols, max(1, cols // 2), 0, at_most), 6, 5, forced=forced)
        check(panel, PanelAnswer(answer.mask, answer.row_duals, np.zeros_like(answer.col_duals)))


@pytest.mark.parametrize("cols", [4, 5, 8])
@pytest.mark.parametrize("at_most", [False, True])
def test_a_broken_group_is_seen(cols: int, at_most: bool) -> None:
    panel, answer = random_case(0, TileSpec(1, cols, 2, 0, at_most), 6, 5)
    mask = answer.mask.copy()
    mask[3, cols : 2 * cols] = True
    broken = certify_panel(panel, PanelAnswer(mask, answer.row_duals, np.zeros_like(answer.col_duals))).legal
    assert np.argwhere(~broken).tolist() == [[3, 1]]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.floats(-1e300, 1e300, allow_subnormal=True), min_size=4, max_size=4), st.floats(0, 1e300))
def test_signs_are_exact_whatever_the_range(duals: list[float], score: float) -> None:
    tile = TileSpec(2, 2, 1, 1)
    scores = np.array([[score, duals[0] + duals[2]], [abs(duals[1] + duals[3]), score]])
    scores = np.abs(scores)
    answer = PanelAnswer(np.eye(2, dtype=bool), np.array([[duals[:2]]]), np.array([[duals[2:]]]))
    certificate = certify_panel(Panel(scores, tile), answer)
    truth = exact_violation(Panel(scores, tile), answer, 0, 0)
    assert (certificate.violation[0, 0] == 0) == (truth == 0)
    assert certificate.violation[0, 0] >= 0


def test_rounding_of_the_sum_of_duals_cannot_hide_a_violation() -> None:
    # fl(1 + 2^-60) = 1, so a naive comparison calls the dropped 1.0 and the price 1 + (-2^-60) equal.
    tile = TileSpec(1, 2, 1, 1, at_most=True)
    scores = np.array([[2.0, 1.0]])
    below = PanelAnswer(np.array([[True, False]]), np.array([[[1.0]]]), np.array([[[0.0, 0.0]]]))
    assert certify_panel(Panel(scores, TileSpec(1, 2, 1, 0)), below).violation[0, 0] == 0.0
    exact = TileSpec(2, 2, 1, 1)
    scores = np.tile([[2.0, 1.0], [0.0, 2.0]], (1, 40))
    u, v = np.tile([1.0, 1.0], (1, 40, 1)), np.tile([0.5, -(2.0**-60)], (1, 40, 1))
    answer = PanelAnswer(np.tile(np.eye(2, dtype=bool), (1, 40)), u, v)
    assert (certify_panel(Panel(scores, exact), answer).violation >= 2.0**-60).all()
    assert tile.at_most


@pytest.mark.parametrize("spot", [(0, 0), (3, 5), (7, 11)])
@pytest.mark.parametrize("at_most", [False, True])
def test_a_broken_budget_is_seen_in_its_own_tile(spot: tuple[int, int], at_most: bool) -> None:
    spec = TileSpec(4, 4, 2, 2, at_most)
    panel, answer = random_case(0, spec)
    assert certify_panel(panel, answer).legal.all()
    mask = answer.mask.copy()
    mask[spot] = True if at_most else not mask[spot]
    broken = certify_panel(panel, PanelAnswer(mask, answer.row_duals, answer.col_duals)).legal
    changed = mask[spot] != answer.mask[spot]
    assert broken[spot[0] // 4, spot[1] // 4] == (not changed)
    assert (~broken).sum() == int(changed)


def test_duals_that_are_not_finite_prove_only_the_total() -> None:
    panel, answer = random_case(1, TileSpec(4, 4, 2, 2))
    duals = answer.row_duals.copy()
    duals[0, 0, 0] = np.nan
    certificate = certify_panel(panel, PanelAnswer(answer.mask, duals, answer.col_duals))
    total = panel.scores[:4, :4].sum()
    assert certificate.objective[0, 0] + certificate.violation[0, 0] == pytest.approx(total)


@pytest.mark.parametrize("cols", [4, 8, 16])
@pytest.mark.parametrize("at_most", [False, True])
def test_duals_of_groups_that_are_nan_prove_only_the_total(cols: int, at_most: bool) -> None:
    scores = np.tile(np.arange(cols, dtype=np.float64), (1, 3))
    best = scores >= cols // 2
    best[:, :cols] = ~best[:, :cols]
    duals = np.array([np.nan, np.nan, cols / 2 - 0.5]).reshape(1, 3, 1)
    panel = Panel(scores, TileSpec(1, cols, cols // 2, 0, at_most))
    certificate = certify_panel(panel, PanelAnswer(best, duals, np.zeros((1, 3, 0))))
    total = scores[:, :cols].sum()
    np.testing.assert_allclose((certificate.objective + certificate.violation)[0, :2], [total, total])
    assert certificate.violation[0, 2] == 0.0


@pytest.mark.parametrize("pattern", ["2:4", "16:2:8", "50%"])
def test_the_bound_of_a_tensor_is_not_below_the_exact_sum_of_its_pieces(pattern: str) -> None:
    # 2^53 + 1 is rounded to 2^53, so sums of these numbers in float64 lose all that is added.
    objectives, violations = np.zeros((1, 512)), np.zeros((1, 512))
    objectives[0, ::8], objectives[0, 0], violations[0, 1] = 1.0, 2.0**53, 1.0
    certificate = Certificate(ms.parse(pattern), objectives, violations, total_score=2.0**60, kept=1)
    exact = sum(map(Fraction, objectives[0])) + 1
    assert exact <= Fraction(certificate.upper_bound) <= exact * Fraction(1 + 1e-12)
    assert sum(map(Fraction, certificate.bounds[0])) >= exact


@pytest.mark.parametrize("scale", [2.0**-1074, 1.0, 2.0**900])
def test_only_what_is_proved_has_its_objective_as_its_bound(scale: float) -> None:
    objectives = np.array([[2.0**53, 2.0**53]]) * scale
    certificate = Certificate(ms.parse("2:4"), objectives, np.array([[0.0, scale]]), total_score=1.0, kept=1)
    assert certificate.bounds[0, 0] == objectives[0, 0]
    assert Fraction(certificate.bounds[0, 1]) >= Fraction(objectives[0, 1]) + Fraction(scale)
    assert certificate.upper_bound > certificate.objective
