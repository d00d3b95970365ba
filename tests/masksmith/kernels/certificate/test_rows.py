"""Certificates of groups in a row against fractions."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from masksmith.kernels.certificate.rows import certify_rows

NO_FORCED = np.zeros((0, 0), np.int8)
SCORES = st.sampled_from([0.0, -0.0, 5e-324, 1e-300, 1.0, 1.0, 1.0 + 2.0**-52, 3.0, 1e300])
DUALS = st.sampled_from([0.0, -0.0, -5e-324, 5e-324, 1.0, 1.0 - 2.0**-53, -2.0, 1e-300, 1e300])


def slow_certificate(scores, mask, forced, dual, keep, at_most):
    """Exact violation of one group, and whether its budget holds."""
    price, used = Fraction(dual), int(mask.sum())
    price = max(price, Fraction(0)) if at_most else price
    total = max(price, Fraction(0)) * max(0, keep - used)
    for w, kept, code in zip(scores.tolist(), mask.tolist(), forced.tolist(), strict=True):
        rest = Fraction(w) - price
        total += max(Fraction(0), -rest if kept else rest) if code == 0 else 0
    return total, used == keep or (at_most and used < keep)


def check(scores, mask, forced, duals, keep, at_most):
    shape, cols = duals.shape, scores.shape[1] // duals.shape[1]
    objective, violation, legal = np.full(shape, np.nan), np.full(shape, np.nan), np.zeros(shape, np.bool_)
    certify_rows(scores, mask, forced, duals, cols, keep, at_most, objective, violation, legal)
    codes = forced if forced.size else np.zeros(scores.shape, np.int8)
    for i, t in np.ndindex(shape):
        part = (i, slice(t * cols, (t + 1) * cols))
        exact, allowed = slow_certificate(scores[part], mask[part], codes[part], float(duals[i, t]), keep, at_most)
        score = sum((Fraction(w) for w in scores[part][mask[part]].tolist()), Fraction(0))
        largest = Fraction(float(violation[i, t]))
        assert legal[i, t] == allowed
        assert abs(Fraction(float(objective[i, t])) - score) <= cols * Fraction(2) ** -52 * score
        if allowed:
            assert exact <= largest <= exact * (1 + Fraction(2) ** -40) + Fraction(cols, 2**1074)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("at_most", [False, True])
@pytest.mark.parametrize("with_forced", [False, True])
@pytest.mark.parametrize("cols", [1, 3, 4, 8, 17])
def test_random_masks_with_ties(cols, with_forced, at_most, dtype):
    rng = np.random.default_rng(cols)
    for groups in (1, 5, 16):
        scores = rng.integers(0, 4, (4, groups * cols)).astype(dtype)
        forced = rng.choice(np.array([0, 0, 1, -1], np.int8), scores.shape) if with_forced else NO_FORCED
        duals = rng.integers(-1, 4, (4, groups)).astype(float)
        check(scores, rng.random(scores.shape) < 0.5, forced, duals, (cols + 1) // 2, at_most)


@settings(max_examples=30, deadline=None)
@given(
    st.lists(SCORES, min_size=16, max_size=16),
    st.lists(DUALS, min_size=4, max_size=4),
    st.lists(st.permutations([True, True, False, False]), min_size=4, max_size=4),
    st.booleans(),
)
def test_signs_are_exact_over_the_whole_range(scores, duals, mask, at_most):
    for width, keep in ((4, 2), (8, 4), (16, 8)):
        prices = np.array(duals[: 16 // width]).reshape(1, -1)
        check(np.array(scores).reshape(1, 16), np.array(mask).reshape(1, 16), NO_FORCED, prices, keep, at_most)


@pytest.mark.parametrize("cols", [4, 8, 5])
@pytest.mark.parametrize("kept", [True, False])
def test_one_last_bit_of_a_score_is_seen(cols, kept):
    # Every score equals the dual; one is moved by its last bit, to the wrong side of it.
    mask = np.tile(np.arange(cols) % 2 == 0, 3).reshape(1, -1)
    scores, place = np.ones((1, 3 * cols)), cols if kept else cols + 1
    scores[0, place] = np.nextafter(1.0, 0.0 if kept else 2.0)
    objective, violation, legal = np.empty((1, 3)), np.empty((1, 3)), np.empty((1, 3), np.bool_)
    certify_rows(scores, mask, NO_FORCED, np.ones((1, 3)), cols, -(-cols // 2), False, objective, violation, legal)
    assert (violation > 0).tolist() == [[False, True, False]]
    assert legal.all()
