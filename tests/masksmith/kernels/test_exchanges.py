"""Exchanges inside patterns against a slow search that computes every error anew."""

import itertools

import numpy as np
import pytest

from masksmith.kernels.exchanges import exchange_in_groups, exchange_in_tiles

KINDS = ("gauss", "ties", "zeros", "dead")


def problem(kind, rows, inputs, seed=0):
    rng = np.random.default_rng(seed)
    seen, weight = rng.standard_normal((40, inputs)), rng.standard_normal((rows, inputs))
    if kind == "ties":
        seen, weight = (
            rng.integers(-1, 2, (40, inputs)).astype(float),
            rng.integers(-1, 2, (rows, inputs)).astype(float),
        )
    if kind == "zeros":
        weight[:] = 0
    if kind == "dead":
        seen[:, ::3] = 0
    return weight, seen.T @ seen


def errors(weight, mask, gram):
    dropped = np.where(mask, 0.0, weight)
    return np.sum((dropped @ gram) * dropped, axis=1)


def exchanged(mask, row, j, k):
    changed = mask.copy()
    changed[row, j], changed[row, k] = False, True
    return changed


def slow_groups(weight, mask, gram, m, least):
    """Sweep each row's groups, trying all exchanges; returns the mask and the number of exchanges."""
    mask, exchanges = mask.copy(), 0
    for row in range(len(weight)):
        moved = True
        while moved:
            moved = False
            for first in range(0, weight.shape[1], m):
                group = range(first, min(first + m, weight.shape[1]))
                before = errors(weight, mask, gram)[row]
                options = [(j, k) for j in group for k in group if mask[row, j] and not mask[row, k]]
                changes = [errors(weight, exchanged(mask, row, j, k), gram)[row] - before for j, k in options]
                if changes and min(changes) < -least[row]:
                    mask = exchanged(mask, row, *options[int(np.argmin(changes))])
                    moved, exchanges = True, exchanges + 1
    return mask, exchanges


def pairs(mask, m):
    """All pairs of opposite exchanges inside tiles of a band."""
    rows, inputs = mask.shape
    for first in range(0, inputs, m):
        group = range(first, min(first + m, inputs))
        for top, bottom in itertools.permutations(range(rows), 2):
            for j, k in itertools.combinations(group, 2):
                if mask[top, j] and mask[bottom, k] and not mask[top, k] and not mask[bottom, j]:
                    yield exchanged(exchanged(mask, top, j, k), bottom, k, j)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("rows", "inputs", "m", "n"), [(5, 16, 4, 2), (3, 10, 4, 1), (2, 9, 3, 2), (1, 4, 4, 2)])
def test_groups_take_the_exchanges_of_the_slow_search(kind, rows, inputs, m, n):
    weight, gram = problem(kind, rows, inputs)
    mask = np.arange(inputs)[None, :] % m < np.full((rows, 1), n)
    least = 1e-9 * errors(weight, mask, gram) + 1e-12
    expected, count = slow_groups(weight, mask, gram, m, least)
    refined, products = mask.copy(), np.where(mask, 0.0, weight) @ gram
    exchanges = exchange_in_groups(weight, refined, products, gram, m, least, 1000)
    np.testing.assert_allclose(products, np.where(refined, 0.0, weight) @ gram, atol=1e-9)
    if kind != "ties":  # where changes are equal, rounding decides
        np.testing.assert_array_equal(refined, expected)
        assert exchanges == count
    assert slow_groups(weight, refined, gram, m, least + 1e-9)[1] == 0
    for first in range(0, inputs, m):
        assert (refined[:, first : first + m].sum(1) == mask[:, first : first + m].sum(1)).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("rows", "inputs", "m", "n"), [(4, 8, 4, 2), (8, 16, 8, 4), (3, 10, 4, 1), (2, 4, 4, 2)])
def test_tiles_end_where_no_pair_gains(kind, rows, inputs, m, n):
    weight, gram = problem(kind, rows, inputs)
    mask = (np.arange(inputs)[None, :] + np.arange(rows)[:, None]) % m < n
    start, least = float(errors(weight, mask, gram).sum()), 1e-9
    refined, products = mask.copy(), np.where(mask, 0.0, weight) @ gram
    exchanges = exchange_in_tiles(weight, refined, products, gram, m, least, 1000)
    error = float(errors(weight, refined, gram).sum())
    np.testing.assert_allclose(products, np.where(refined, 0.0, weight) @ gram, atol=1e-9)
    np.testing.assert_array_equal(refined.sum(0), mask.sum(0))
    for first in range(0, inputs, m):
        own = slice(first, first + m)
        np.testing.assert_array_equal(refined[:, own].sum(1), mask[:, own].sum(1))
    assert all(errors(weight, other, gram).sum() >= error - 1e-8 for other in pairs(refined, m))
    assert error < start if exchanges else error == start
    if kind == "gauss" and rows > 2:
        assert exchanges > 0


def test_the_first_pair_of_a_tile_is_the_best_one():
    weight, gram = problem("gauss", 4, 4)
    mask = (np.arange(4)[None, :] + np.arange(4)[:, None]) % 4 < 2
    candidates = list(pairs(mask, 4))
    best = min(candidates, key=lambda other: errors(weight, other, gram).sum())
    refined = mask.copy()
    products = np.where(mask, 0.0, weight) @ gram
    gain = errors(weight, mask, gram).sum() - errors(weight, best, gram).sum()
    exchange_in_tiles(weight, refined, products, gram, 4, gain * (1 - 1e-9), 1)  # anything less is not worth it
    assert errors(weight, refined, gram).sum() <= errors(weight, best, gram).sum() + 1e-9


def test_sweeps_are_limited():
    weight, gram = problem("gauss", 4, 32)
    mask = np.arange(32)[None, :] % 4 < np.full((4, 1), 2)
    products = np.where(mask, 0.0, weight) @ gram
    exchanges = exchange_in_groups(weight, mask, products, gram, 4, np.full(4, 1e-9), 1)
    assert 0 < exchanges <= 4 * 8
