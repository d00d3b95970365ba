import numpy as np
import pytest
from support.naive_tiles import AWKWARD, awkward, best, check_allowed, objective, some_forced, tiles_of, violations

from masksmith._errors import InfeasibleError
from masksmith._panels import DROP, KEEP, Panel
from masksmith.patterns import parse
from masksmith.solvers.base import Solver
from masksmith.solvers.top_k import TopK

PATTERNS = ("1:1", "2:2", "1:3", "1:4", "2:4", "4:4", "<=2:4", "5:7", "4:8", "<=3:16", "33:64")


def solve(scores, pattern, forced=None):
    panel = Panel(scores, parse(pattern).tile, forced)
    answer = TopK()(panel)
    check_allowed(panel, answer)
    return panel, answer


def test_is_a_solver():
    assert isinstance(TopK(), Solver)
    assert TopK() == TopK()
    assert hash(TopK()) == hash(TopK())
    assert (TopK().name, TopK().parallelism) == ("top-k", "threads")


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("kind", AWKWARD)
def test_keeps_the_largest_with_ties_to_the_lowest_index_and_proves_it(pattern, kind):
    m = parse(pattern).tile.cols
    panel, answer = solve(awkward(kind, (3, 67 * m)), pattern)
    assert not any(violations(panel, answer))
    for scores, mask, *_ in tiles_of(panel, answer):
        order = np.argsort(-scores[0], kind="stable")[: panel.tile.row_keep]
        assert set(np.nonzero(mask[0])[0]) == set(order)


@pytest.mark.parametrize("pattern", ["1:4", "2:4", "3:4", "<=2:4", "3:8", "<=5:8"])
@pytest.mark.parametrize("kind", ["gauss", "ties", "zeros", "wide"])
def test_forced_entries_are_obeyed_at_the_optimum(pattern, kind):
    tile = parse(pattern).tile
    scores, forced = awkward(kind, (1, 40 * tile.cols)), some_forced((1, 40 * tile.cols), share=0.5)
    cut = [(scores[:, at : at + tile.cols], forced[:, at : at + tile.cols]) for at in range(0, scores.size, tile.cols)]
    possible = [(s, f) for s, f in cut if best(s, tile, f) is not None]
    assert possible
    panel, answer = solve(np.hstack([s for s, _ in possible]), pattern, np.hstack([f for _, f in possible]))
    assert not any(violations(panel, answer))
    assert objective(panel, answer) == pytest.approx([best(s, tile, f) for s, f in possible])


@pytest.mark.parametrize(
    ("pattern", "how", "places"), [("2:4", KEEP, 3), ("<=2:4", KEEP, 3), ("2:4", DROP, 3), ("3:8", KEEP, 4)]
)
def test_an_impossible_group_is_named(pattern, how, places):
    m = parse(pattern).tile.cols
    forced = np.zeros((5, 70 * m), np.int8)
    forced[3, 66 * m : 66 * m + places] = how
    with pytest.raises(InfeasibleError, match=r"tile \[3, 66\]"):
        solve(awkward("gauss", forced.shape), pattern, forced)


def test_at_most_survives_what_exact_fill_cannot():
    forced = np.full((1, 4), DROP, np.int8)
    _, answer = solve(np.ones((1, 4), np.float32), "<=2:4", forced)
    assert not answer.mask.any()


def test_refuses_tiles_that_bind_columns():
    assert TopK().refusal(parse("2:4").tile, forced=True) is None
    assert "column budgets" in (TopK().refusal(parse("transposable 2:4").tile, forced=False) or "")


def test_accepts_strided_and_read_only_scores():
    scores = awkward("gauss", (8, 32))
    scores.flags.writeable = False
    whole = TopK()(Panel(scores, parse("2:4").tile))
    part = TopK()(Panel(scores[::2, 8:24], parse("2:4").tile))
    assert (part.mask == whole.mask[::2, 8:24]).all()
