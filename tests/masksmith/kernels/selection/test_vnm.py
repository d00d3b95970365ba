"""V:N:M panels against enumeration of every set of four columns, in fractions."""

from fractions import Fraction
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from masksmith.kernels.selection.vnm import solve_strip
from masksmith.kernels.selection.vnm_search import search

M = 8
KINDS = ("gauss", "ties", "zeros", "constant", "one-hot", "wide", "subnormal")


def awkward(kind, rows, cols, seed=0):
    rng = np.random.default_rng(seed)
    shape = (rows, cols)
    return {
        "gauss": lambda: np.abs(rng.standard_normal(shape)),
        "ties": lambda: rng.integers(0, 3, shape).astype(float),
        "zeros": lambda: np.zeros(shape),
        "constant": lambda: np.full(shape, 0.1),
        "one-hot": lambda: np.where(rng.random(shape) < 0.05, 3.0, 0.0),
        "wide": lambda: 10.0 ** rng.uniform(-300, 300, shape),
        "subnormal": lambda: 5e-324 * rng.integers(0, 9, shape),
    }[kind]()


def kept(rows, n):
    """Score of the n largest entries of every row, as a fraction."""
    return sum((Fraction(x) for row in rows.tolist() for x in sorted(row)[-n:]), Fraction(0))


def best(panel, n):
    return max(kept(panel[:, chosen], n) for chosen in combinations(range(panel.shape[1]), 4))


@pytest.mark.parametrize("n", [1, 2, 3, 4])
@pytest.mark.parametrize("kind", KINDS)
def test_the_mask_is_legal_and_its_bound_holds(kind, n):
    scores = awkward(kind, 6, 3 * M)
    mask, excess = np.zeros(scores.shape, np.bool_), np.full(3, np.nan)
    solve_strip(scores, n, M, 10**6, mask, excess)
    for panel in range(3):
        part = slice(panel * M, (panel + 1) * M)
        assert (mask[:, part].sum(1) == n).all()
        assert mask[:, part].any(0).sum() <= 4
        score = sum((Fraction(x) for x in scores[:, part][mask[:, part]].tolist()), Fraction(0))
        assert score + Fraction(excess[panel]) >= best(scores[:, part], n)
        assert excess[panel] <= 1e-11 * float(score)


@pytest.mark.parametrize("rows", [1, 3, 4, 5])
@pytest.mark.parametrize("limit", [0, 3, 10**6])
@pytest.mark.parametrize("kind", ["gauss", "ties", "one-hot"])
def test_the_bound_holds_when_the_search_is_cut_short(kind, limit, rows):
    scores = awkward(kind, rows, M, seed=rows)
    mask, excess = np.zeros(scores.shape, np.bool_), np.full(1, np.nan)
    solve_strip(scores, 2, M, limit, mask, excess)
    score = sum((Fraction(x) for x in scores[mask].tolist()), Fraction(0))
    assert score + Fraction(excess[0]) >= best(scores, 2)


@pytest.mark.parametrize("m", [4, 5, 8])
def test_ties_in_a_row_go_to_the_lowest_column(m):
    mask, excess = np.zeros((4, m), np.bool_), np.full(1, np.nan)
    solve_strip(np.ones((4, m)), 2, m, 10**6, mask, excess)
    first, second = np.flatnonzero(mask.any(0))
    assert mask[:, [first, second]].all()
    assert excess[0] == 0.0


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 3), min_size=4 * M, max_size=4 * M), st.integers(1, 4))
def test_integers_are_searched_exactly(values, n):
    panel, chosen = np.array(values, float).reshape(4, M), np.zeros(4, np.int64)
    score, second, bound = search(np.ascontiguousarray(panel.T), n, 10**6, 1.0, chosen)
    assert score == bound == best(panel, n)
    assert second <= score
    assert sorted(set(chosen.tolist())) == chosen.tolist()
    assert kept(panel[:, chosen], n) == score


@pytest.mark.parametrize("small", [5e-324, 1e-300, 1.0])
def test_an_entry_that_a_sum_loses_beside_a_large_one_is_not_proved_to_be_worth_nothing(small):
    scores, mask, excess = np.zeros((1, M)), np.zeros((1, M), np.bool_), np.full(1, np.nan)
    scores[0, 0], scores[0, M - 1] = 2.0**60, small
    solve_strip(scores, 2, M, 10**6, mask, excess)
    score = sum((Fraction(x) for x in scores[mask].tolist()), Fraction(0))
    assert score + Fraction(excess[0]) >= best(scores, 2)
