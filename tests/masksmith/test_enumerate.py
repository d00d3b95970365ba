import numpy as np
import pytest
from support.naive_tiles import AWKWARD, awkward, best, check_allowed, objective, some_forced, tiles_of, violations

from masksmith._errors import InfeasibleError
from masksmith._panels import DROP, KEEP, Panel
from masksmith.patterns import parse
from masksmith.solvers.base import Solver
from masksmith.solvers.enumerate import Enumerate, all_masks
from masksmith.solvers.min_cost_flow import MinCostFlow


def solve(scores, pattern, forced=None):
    panel = Panel(scores, parse(f"transposable {pattern}").tile, forced)
    answer = Enumerate()(panel)
    check_allowed(panel, answer)
    return panel, answer


def test_is_a_solver():
    assert isinstance(Enumerate(), Solver)
    assert (Enumerate().name, Enumerate().parallelism) == ("enumerate", "threads")


@pytest.mark.parametrize(("n", "count"), [(1, 24), (2, 90), (3, 24), (4, 1)])
def test_the_table_is_complete_and_in_order(n, count):
    masks = all_masks(n).reshape(-1, 16)
    assert len({tuple(mask) for mask in masks}) == len(masks) == count
    assert [tuple(~mask) for mask in masks] == sorted(tuple(~mask) for mask in masks)


@pytest.mark.parametrize("pattern", ["1:4", "2:4", "3:4", "4:4"])
@pytest.mark.parametrize("kind", AWKWARD)
def test_every_mask_is_proved_optimal(pattern, kind):
    panel, answer = solve(awkward(kind, (32, 48)), pattern)
    assert not any(violations(panel, answer))
    assert objective(panel, answer) == pytest.approx(objective(panel, MinCostFlow()(panel)), rel=1e-12)


@pytest.mark.parametrize("pattern", ["1:4", "2:4", "3:4"])
@pytest.mark.parametrize("kind", ["gauss", "ties", "zeros", "float64"])
def test_forced_entries_are_obeyed_at_the_optimum(pattern, kind):
    scores, tile = awkward(kind, (4, 160)), parse(f"transposable {pattern}").tile
    forced = some_forced(scores.shape, seed=2, share=0.3)
    cuts = [slice(at, at + 4) for at in range(0, 160, 4)]
    possible = [cut for cut in cuts if best(scores[:, cut], tile, forced[:, cut]) is not None]
    assert len(possible) > 3
    panel, answer = solve(
        np.hstack([scores[:, c] for c in possible]), pattern, np.hstack([forced[:, c] for c in possible])
    )
    assert not any(violations(panel, answer))
    expected = [best(w, tile, how) for w, _, how, *_ in tiles_of(panel, answer)]
    assert objective(panel, answer) == pytest.approx(expected, rel=1e-6)


def test_ties_go_to_the_mask_that_keeps_early_entries():
    _, answer = solve(np.ones((4, 4), np.float32), "2:4")
    assert answer.mask.astype(int).tolist() == [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1]]


def test_true_ties_survive_doubles_that_would_round():
    """Two masks tie, at 1 + 2^-53; doubles round it to 1, whatever the order in which they add."""
    scores = np.zeros((4, 4))
    scores[0, 0], scores[1, 1], scores[2, 2] = 1.0, 2.0**-54, 2.0**-54
    scores[0, 3], scores[1, 2], scores[2, 1] = 1.0, 2.0**-53, 0.0
    panel, answer = solve(scores, "1:4")
    assert not any(violations(panel, answer))
    assert answer.mask[0, 0]
    assert answer.mask[1, 1]


@pytest.mark.parametrize("how", [KEEP, DROP])
def test_an_impossible_tile_is_named(how):
    forced = np.zeros((8, 12), np.int8)
    forced[5, 8:11] = how
    with pytest.raises(InfeasibleError, match=r"tile \[1, 2\]"):
        solve(np.ones((8, 12), np.float32), "2:4", forced)


@pytest.mark.parametrize("pattern", ["2:4", "transposable <=2:4", "transposable 2:8", "transposable 2:4 x 4:8"])
def test_refuses_everything_else(pattern):
    assert "4:4" in (Enumerate().refusal(parse(pattern).tile, forced=False) or "")


def test_accepts_four_by_four():
    assert Enumerate().refusal(parse("transposable 2:4").tile, forced=True) is None
