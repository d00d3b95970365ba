"""Tables and local search of column swaps against sums over sorted rows."""

import numpy as np
import pytest

from masksmith.kernels.column_swaps import climb, column_values, refresh, swap

SHAPES = [(1, 4, 4, 2), (5, 12, 4, 2), (3, 10, 4, 1), (4, 9, 3, 3), (6, 16, 8, 4)]
KINDS = ("gauss", "ties", "zeros", "wide")


def layer(kind, rows, columns):
    rng = np.random.default_rng(rows * columns)
    return {
        "gauss": lambda: np.abs(rng.standard_normal((rows, columns))),
        "ties": lambda: rng.integers(0, 3, (rows, columns)),
        "zeros": lambda: np.zeros((rows, columns)),
        "wide": lambda: 2.0 ** rng.integers(-10, 10, (rows, columns)),
    }[kind]().astype(np.float32)


class Tables:
    """A column order with -1 for missing columns, its inverse, and the tables of the kernel."""

    def __init__(self, x, m, keep):
        rows, columns = x.shape
        self.x, self.m, self.keep, self.groups = x, m, keep, -(-columns // m)
        self.order = np.full(self.groups * m, -1, np.int64)
        self.order[:columns] = np.random.default_rng(0).permutation(columns)
        self.places = np.argsort(self.order)[self.groups * m - columns :]
        self.thresholds = np.full((columns, rows), np.nan, np.float32)
        self.without, self.score = np.full(columns, np.nan), np.full(self.groups, np.nan)
        self.gains = np.full((columns, columns), np.nan)
        self.tables = (np.empty(m, np.float32), self.thresholds, self.without, self.score, self.gains)
        for group in range(self.groups):
            refresh(x, self.order, group, keep, *self.tables)

    def columns_of(self, group):
        part = self.order[group * self.m : (group + 1) * self.m]
        return part[part >= 0].tolist()


def kept(x, columns, keep):
    """Score of the `keep` largest entries of every row in these columns; missing columns count as 0."""
    return float(np.sort(x[:, columns].astype(np.float64), axis=1)[:, -keep:].sum())


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_tables_hold_the_scores_of_all_exchanges(kind, shape):
    rows, columns, m, keep = shape
    state = Tables(layer(kind, rows, columns), m, keep)
    x = state.x
    for group in range(state.groups):
        members = state.columns_of(group)
        assert state.score[group] == pytest.approx(kept(x, members, keep), rel=1e-12)
        for a in members:
            rest = [column for column in members if column != a]
            assert state.without[a] == pytest.approx(kept(x, rest, keep) if rest else 0.0, rel=1e-12, abs=1e-12)
            padded = np.sort(np.hstack([x[:, rest], np.zeros((rows, m), np.float32)]), axis=1)
            assert np.array_equal(state.thresholds[a], padded[:, -keep])
            for b in set(range(columns)) - set(members):
                gain = kept(x, [*rest, b], keep) - (kept(x, rest, keep) if rest else 0.0)
                assert state.gains[a, b] == pytest.approx(gain, rel=1e-12, abs=1e-9 * max(1.0, state.score.sum()))


def test_a_swap_keeps_order_and_places_inverse():
    order, places = np.array([2, 0, -1, 1, 3, -1]), np.array([1, 3, 0, 4])
    swap(order, places, 0, 4)
    assert order.tolist() == [3, 0, -1, 1, 2, -1]
    assert places.tolist() == [1, 3, 4, 0]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_descent_ends_where_no_swap_gains(kind, shape):
    rows, columns, m, keep = shape
    state = Tables(layer(kind, rows, columns), m, keep)
    before = state.score.sum()
    assert climb(state.x, state.order, state.places, keep, *state.tables, 1e-9, 1000) < 1000
    assert state.score.sum() >= before
    assert sorted(state.order[state.order >= 0].tolist()) == list(range(columns))
    total = sum(kept(state.x, state.columns_of(group), keep) for group in range(state.groups))
    assert state.score.sum() == pytest.approx(total, rel=1e-12)
    for a in range(columns):
        for b in range(a):
            assert total_after_swap(state, a, b) <= total + 1e-9 + 1e-12 * total


def total_after_swap(state, a, b):
    renamed = {a: b, b: a}
    groups = [[renamed.get(column, column) for column in state.columns_of(group)] for group in range(state.groups)]
    return sum(kept(state.x, members, state.keep) for members in groups)


def test_descent_stops_after_the_limit_and_leaves_columns_without_a_place():
    state = Tables(layer("gauss", 6, 16), 4, 2)
    fixed = state.order[0]
    state.places[fixed] = -1
    state.order[0] = -1
    assert climb(state.x, state.order, state.places, 2, *state.tables, 1e-9, 1) == 1
    assert fixed not in state.order
    assert sorted([*state.order[1:], fixed]) == list(range(16))


@pytest.mark.parametrize("at_most", [False, True])
@pytest.mark.parametrize("keep", [1, 2, 4])
def test_values_of_columns_are_sums_of_their_largest_residuals(keep, at_most):
    rng = np.random.default_rng(keep)
    x, duals = rng.integers(0, 5, (8, 6)).astype(float), rng.integers(-1, 4, (2, 3, 4)).astype(float)
    values, expected = np.full((6, 3), np.nan), np.zeros((6, 3))
    column_values(x, duals, keep, at_most, values, np.empty(keep))
    for column in range(6):
        for tile in range(3):
            for strip in range(2):
                rest = np.sort(x[4 * strip : 4 * strip + 4, column] - duals[strip, tile])[-keep:]
                expected[column, tile] += np.maximum(rest, 0.0).sum() if at_most else rest.sum()
    assert np.array_equal(values, expected)
