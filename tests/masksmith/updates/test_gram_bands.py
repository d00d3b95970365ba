"""A Gram matrix that is read in bands: the same bits as from an array, and no more of it at a time."""

import numpy as np
import pytest
import torch

import masksmith as ms
from masksmith.updates import gram_bands
from masksmith.updates.gram_bands import read_in_bands, symmetrise

RNG = np.random.default_rng(11)
INPUTS = RNG.standard_normal((200, 48))
GRAM = INPUTS.T @ INPUTS
WEIGHT = RNG.standard_normal((16, 48)).astype(np.float32)
MASK = ms.solve(ms.magnitude(WEIGHT), "2:4").mask


class Rows:
    """Rows of an array, of which it notes those that are read."""

    def __init__(self, array):
        self.shape, self._array, self.read = array.shape, array, []

    def rows(self, first, last):
        self.read.append((first, last))
        return self._array[first:last]


@pytest.fixture(autouse=True)
def small_bands(monkeypatch):
    monkeypatch.setattr(gram_bands, "BAND_BYTES", 8 * 48 * 10)
    monkeypatch.setattr(gram_bands, "BLOCK", 20)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_updates_are_those_of_the_array(dtype):
    rows = Rows(GRAM.astype(dtype))
    banded = ms.reconstruct(WEIGHT, MASK, rows)
    whole = ms.reconstruct(WEIGHT, MASK, GRAM.astype(dtype))
    assert np.array_equal(banded.weight, whole.weight)
    assert banded.error == whole.error
    assert rows.read == [(0, 10), (10, 20), (20, 30), (30, 40), (40, 48)]


def test_the_callers_array_stays_as_it_was():
    gram = GRAM + np.triu(np.full_like(GRAM, 1e-9))
    before = gram.copy()
    ms.reconstruct(WEIGHT, MASK, gram)
    assert np.array_equal(gram, before)


@pytest.mark.parametrize("length", [1, 20, 21, 48])
def test_the_mean_with_the_transpose_is_that_of_the_whole(length):
    matrix = torch.from_numpy(RNG.standard_normal((length, length)))
    expected = (matrix + matrix.T) / 2
    difference = (matrix - matrix.T).abs()
    product = matrix.clone()
    largest, index = symmetrise(product)
    assert torch.equal(product, expected)
    assert largest == float(difference.max())
    assert float(difference[tuple(index)]) == largest


@pytest.mark.parametrize(("at", "value"), [((37, 5), np.nan), ((2, 40), np.inf)])
def test_an_entry_that_is_not_finite_is_named(at, value):
    gram = GRAM.copy()
    gram[at] = value
    with pytest.raises(ms.UpdateError, match=rf"gram holds {value:g} at \[{at[0]}, {at[1]}\]"):
        ms.reconstruct(WEIGHT, MASK, Rows(gram))


def test_an_asymmetry_is_named():
    gram = GRAM.copy()
    gram[37, 5] += 1
    with pytest.raises(ms.UpdateError, match=r"not symmetric at \[5, 37\]"):
        ms.reconstruct(WEIGHT, MASK, Rows(gram))


def test_the_largest_entry_is_that_of_all_bands():
    _, largest = read_in_bands(Rows(GRAM), torch.device("cpu"), None)
    assert largest == np.abs(GRAM).max()
