"""Validation and summation of scores against Python's exact sum."""

import math

import numpy as np
import pytest

from masksmith.kernels.scan import STRIP, scan

SHAPES = [(0, 4), (1, 1), (1, STRIP - 1), (2, STRIP // 2), (1, STRIP + 1), (3, 257)]


def awkward_values(shape, dtype):
    """Zeros of both signs, subnormals and values over the whole range of the type."""
    limits = np.finfo(dtype)
    values = [0.0, -0.0, limits.smallest_subnormal, limits.tiny, 1.0, 1.0 / 3.0, float(limits.max) / 4096]
    return np.random.default_rng(0).choice(np.array(values, dtype), shape)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_sum_is_exact_up_to_rounding(dtype, shape):
    scores = awkward_values(shape, dtype)
    invalid, total = scan(scores)
    exact = math.fsum(scores.ravel().tolist())
    assert invalid == -1
    assert abs(total - exact) <= scores.size * 2.0**-53 * exact


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_small_integers_are_summed_without_rounding(dtype):
    scores = np.random.default_rng(1).integers(0, 1000, (7, 300)).astype(dtype)
    assert scan(scores) == (-1, int(scores.astype(np.int64).sum()))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, -1.0, "-tiny"])
@pytest.mark.parametrize("place", [0, STRIP - 1, STRIP, 3 * 257 - 1])
def test_the_first_invalid_score_is_reported(dtype, value, place):
    scores = awkward_values((3, 257), dtype)
    scores.flat[place] = -np.finfo(dtype).smallest_subnormal if value == "-tiny" else value
    scores.flat[min(place + 5, scores.size - 1)] = np.nan
    assert scan(scores)[0] == place
