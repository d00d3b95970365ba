import numpy as np
import pytest
from support.naive_tiles import AWKWARD, awkward, best, check_allowed, objective, some_forced, tiles_of, violations

from masksmith._errors import InfeasibleError
from masksmith._panels import DROP, KEEP, Panel
from masksmith.patterns import parse
from masksmith.solvers._duals.residual import residual_duals
from masksmith.solvers.base import Solver
from masksmith.solvers.min_cost_flow import MinCostFlow

PATTERNS = (
    "1:1",
    "2:2",
    "1:4",
    "2:4",
    "<=2:4",
    "3:5",
    "4:8",
    "<=3:8",
    "8:16",
    "2:4 x 4:8",
    "<=3:4 x 2:6",
    "<=1:2 x 5:7",
)


def solve(scores, pattern, forced=None):
    panel = Panel(scores, parse(f"transposable {pattern}").tile, forced)
    answer = MinCostFlow()(panel)
    check_allowed(panel, answer)
    return panel, answer


def some_tiles(pattern, kind, down=2, across=3, seed=0):
    tile = parse(f"transposable {pattern}").tile
    return awkward(kind, (down * tile.rows, across * tile.cols), seed)


def test_is_a_solver():
    assert isinstance(MinCostFlow(), Solver)
    assert (MinCostFlow().name, MinCostFlow().parallelism) == ("min-cost-flow", "processes")


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("kind", AWKWARD)
def test_every_mask_is_proved_optimal(pattern, kind):
    panel, answer = solve(some_tiles(pattern, kind), pattern)
    assert not any(violations(panel, answer))


@pytest.mark.parametrize("pattern", ["2:4", "<=2:4", "3:5", "<=3:8", "2:4 x 4:8", "<=3:4 x 2:6"])
@pytest.mark.parametrize("kind", ["gauss", "ties", "columns", "float64"])
def test_agrees_with_a_linear_program(pattern, kind):
    panel, answer = solve(some_tiles(pattern, kind), pattern)
    expected = [best(scores, panel.tile) for scores, *_ in tiles_of(panel, answer)]
    assert objective(panel, answer) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("pattern", ["2:4", "<=2:4", "4:8", "<=3:8", "2:4 x 4:8", "<=3:4 x 2:6"])
@pytest.mark.parametrize("kind", ["gauss", "ties", "zeros", "columns"])
def test_forced_entries_are_obeyed_at_the_optimum(pattern, kind):
    scores = some_tiles(pattern, kind)
    panel, answer = solve(scores, pattern, some_forced(scores.shape, seed=5))
    assert not any(violations(panel, answer))
    expected = [best(scores, panel.tile, forced) for scores, _, forced, *_ in tiles_of(panel, answer)]
    assert objective(panel, answer) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(("pattern", "how"), [("2:4", KEEP), ("<=2:4", KEEP), ("2:4", DROP)])
def test_an_impossible_row_names_its_tile(pattern, how):
    forced = np.zeros((12, 16), np.int8)
    forced[9, 4:7] = how
    with pytest.raises(InfeasibleError, match=r"tile \[2, 1\]"):
        solve(np.ones((12, 16), np.float32), pattern, forced)


def test_a_tile_is_impossible_though_every_row_and_column_is_not():
    forced = np.zeros((6, 6), np.int8)
    forced[:2, 2:] = forced[2, 3:] = DROP
    assert ((forced == 0).sum(0) >= 2).all()
    with pytest.raises(InfeasibleError, match=r"tile \[0, 0\]"):
        solve(np.ones((6, 6), np.float32), "2:6", forced)


def test_a_neighbour_changes_nothing():
    scores = some_tiles("4:8", "ties", 3, 4)
    _, whole = solve(scores, "4:8")
    _, part = solve(scores[8:16, 8:24], "4:8")
    assert (whole.mask[8:16, 8:24] == part.mask).all()
    assert (whole.row_duals[1:2, 1:3] == part.row_duals).all()


@pytest.mark.parametrize("pattern", ["4:8", "<=8:16", "32:64"])
def test_scores_beyond_64_bits_are_rounded_by_less_than_anyone_can_tell(pattern):
    tile = parse(f"transposable {pattern}").tile
    scores = 10.0 ** np.random.default_rng(1).uniform(-30, 30, (tile.rows, tile.cols)).astype(np.float32)
    panel, answer = solve(scores, pattern)
    assert float(max(violations(panel, answer))) <= 1e-12 * float(scores.max())


def test_refuses_tiles_without_column_budgets():
    assert MinCostFlow().refusal(parse("transposable <=2:4 x 1:8").tile, forced=True) is None
    assert "top-k" in (MinCostFlow().refusal(parse("2:4").tile, forced=False) or "")


def test_residual_duals_prove_only_a_mask_that_cannot_be_improved():
    scores, tile = np.array([[[3.0, 1.0], [1.0, 2.0]]] * 2), parse("transposable 1:2").tile
    mask = np.array([[[True, False], [False, True]], [[False, True], [True, False]]])
    row_duals, col_duals = residual_duals(scores, mask, tile)
    prices = row_duals[:, :, None] + col_duals[:, None]
    is_proved = np.where(mask, prices <= scores, prices >= scores).all((1, 2))
    assert is_proved.tolist() == [True, False]
