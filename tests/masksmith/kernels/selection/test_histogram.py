"""The histogram of 16 bits of the scores against numpy's `bincount`, and a selection with it against sorting."""

import numpy as np
import pytest

from masksmith.kernels.selection.histogram import BINS, count

WORDS = {np.float32: np.uint32, np.float64: np.uint64}


def histogram(scores, mask, prefix, shift):
    word = WORDS[scores.dtype.type]
    sign, counts = word((1 << (word(0).nbytes * 8 - 1)) - 1), np.zeros(BINS, np.int64)
    count(scores.view(word), word(mask), word(prefix), sign, word(shift), counts)
    return counts


def awkward(dtype, shape=(5, 37)):
    limits = np.finfo(dtype)
    some = np.array([0.0, -0.0, limits.smallest_subnormal, limits.tiny, 1.0, 1.0 + limits.eps, limits.max], dtype)
    rng = np.random.default_rng(0)
    return np.where(rng.random(shape) < 0.5, rng.choice(some, shape), rng.random(shape).astype(dtype))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_counts_of_the_leading_bits(dtype):
    scores = awkward(dtype)
    shift = 16 if dtype is np.float32 else 48
    keys = np.abs(scores).view(WORDS[dtype]).ravel() >> shift
    assert np.array_equal(histogram(scores, 0, 0, shift), np.bincount(keys.astype(np.int64), minlength=BINS))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_only_keys_with_the_prefix_are_counted(dtype):
    scores = awkward(dtype)
    shift = 0 if dtype is np.float32 else 32
    keys = np.abs(scores).view(WORDS[dtype]).ravel()
    top = int(keys[3]) >> (shift + 16)
    matching = keys[keys >> (shift + 16) == top]
    expected = np.bincount(((matching >> shift) & 0xFFFF).astype(np.int64), minlength=BINS)
    assert expected.sum() > 0
    assert np.array_equal(histogram(scores, (BINS - 1) << (shift + 16), top << (shift + 16), shift), expected)


def test_counts_are_added_to_what_is_there():
    scores, counts = np.ones((2, 3), np.float32), np.ones(BINS, np.int64)
    count(scores.view(np.uint32), np.uint32(0), np.uint32(0), np.uint32(0x7FFFFFFF), np.uint32(16), counts)
    assert counts.sum() == BINS + 6
    assert counts[0x3F80] == 7


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("keep", [1, 40, 185])
def test_two_or_four_steps_select_the_kth_largest_score(dtype, keep):
    scores, prefix, mask, left = awkward(dtype), 0, 0, keep
    bits = 32 if dtype is np.float32 else 64
    for shift in range(bits - 16, -1, -16):
        counts = histogram(scores, mask, prefix, shift)
        value = BINS - 1
        while counts[value] < left:
            left, value = left - counts[value], value - 1
        prefix, mask = prefix | value << shift, mask | (BINS - 1) << shift
    assert np.array([prefix], WORDS[dtype]).view(dtype)[0] == np.sort(np.abs(scores).ravel())[-keep]
