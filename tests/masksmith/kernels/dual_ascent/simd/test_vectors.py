"""Sorting networks, reductions and transpositions, evaluated on numbers instead of emitted as instructions."""

from __future__ import annotations

import operator
from itertools import product
from types import SimpleNamespace

import numpy as np
import pytest

from masksmith.kernels.dual_ascent.simd import vectors
from masksmith.kernels.dual_ascent.simd.vectors import LANES

SIZES = (2, 4, 8, 16, 32, 64)


class Vector(np.ndarray):
    """An array with the type's element count where LLVM values have it."""

    @property
    def type(self):
        return SimpleNamespace(count=len(self))


COMPARE = {"<": operator.lt, ">": operator.gt}


class Evaluator:
    """Has the methods of an LLVM builder that the functions use, and computes their results at once."""

    def icmp_signed(self, sign, a, b):
        return COMPARE[sign](a, b)

    def select(self, condition, a, b):
        return np.where(condition, a, b)

    def add(self, a, b):
        return a + b

    def shuffle_vector(self, a, b, picks):
        return np.concatenate([a, b])[[pick.constant for pick in picks.constant]].view(Vector)


BUILDER = Evaluator()


@pytest.mark.parametrize("size", SIZES)
def test_the_network_sorts_zeros_and_ones(size):
    # A network of comparators that sorts every sequence of zeros and ones sorts every sequence (Knuth, 5.3.4).
    rng = np.random.default_rng(0)
    columns = np.array(list(product([0, 1], repeat=size))).T if size <= 16 else rng.integers(0, 2, (size, 1 << 14))
    counts, values = columns.sum(0), list(columns)
    for greater, lesser in vectors.network(size):
        assert greater < lesser
        a, b = values[greater], values[lesser]
        values[greater], values[lesser] = a | b, a & b
    assert np.array_equal(np.array(values), np.arange(size)[:, None] < counts)


@pytest.mark.parametrize("size", SIZES)
def test_sort_and_medians(size):
    rng = np.random.default_rng(size)
    values = rng.integers(-3, 3, (size, LANES))
    ordered = -np.sort(-values, axis=0)
    assert np.array_equal(vectors.sort(BUILDER, list(values)), ordered)
    high, low = vectors.median_pair(BUILDER, list(values))
    assert np.array_equal(high, ordered[size // 2 - 1])
    assert np.array_equal(low, ordered[size // 2])


@pytest.mark.parametrize("count", [1, 2, 3, 5, 8, 13])
def test_fold_uses_every_value_once(count):
    values = np.random.default_rng(count).integers(-9, 9, (count, LANES))
    assert np.array_equal(vectors.fold(BUILDER, vectors.add, list(values)), values.sum(0))
    assert np.array_equal(vectors.fold(BUILDER, vectors.maximum, list(values)), values.max(0))
    assert np.array_equal(vectors.fold(BUILDER, vectors.minimum, list(values)), values.min(0))


@pytest.mark.parametrize("places", [1, 2, 4, 8, 16])
def test_transpositions(places):
    tiles = np.arange(LANES * places).reshape(LANES, places)
    stored = list(tiles.reshape(places, LANES))
    lanes = vectors.to_lanes(BUILDER, stored)
    assert np.array_equal(lanes, tiles.T)
    assert np.array_equal(vectors.from_lanes(BUILDER, lanes), np.array(stored))


@pytest.mark.parametrize("count", [1, 2, 8])
def test_join_and_part(count):
    pieces = [np.arange(4 * k, 4 * k + 4).view(Vector) for k in range(count)]
    joined = vectors.join(BUILDER, pieces)
    assert joined.tolist() == list(range(4 * count))
    assert vectors.part(BUILDER, joined, 1, 3).tolist() == [1, 2, 3]
