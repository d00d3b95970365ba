"""Exact check of complementary slackness, and centring of duals, against fractions and plain loops."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from support.kernel_tiles import SPECS, any_legal_mask, make_tile, mask_of, satisfies_slackness

from masksmith.kernels.shortest_paths.complementary_slackness import centre, is_proved, two_sum

VALUES = st.sampled_from([0.0, 5e-324, 1e-300, 0.5, 1.0, 1.0 + 2.0**-52, 2.0, 1e300])
DUALS = st.sampled_from([0.0, -0.0, 5e-324, 2.0**-60, 0.5, 1.0, 1.0 - 2.0**-53, -1.0, 1e300])


@settings(max_examples=30, deadline=None)
@given(st.floats(-1e300, 1e300), st.floats(-1e300, 1e300))
def test_two_sum_loses_nothing(u, v):
    total, error = two_sum.py_func(u, v)
    assert total == u + v
    assert Fraction(total) + Fraction(error) == Fraction(u) + Fraction(v)


@pytest.mark.parametrize("at_most", [False, True])
@settings(max_examples=30, deadline=None)
@given(
    w=st.lists(VALUES, min_size=16, max_size=16),
    duals=st.lists(DUALS, min_size=8, max_size=8),
    free=st.lists(st.sampled_from([1, 1, 1, 0]), min_size=16, max_size=16),
)
def test_signs_are_exact_over_the_whole_range(at_most, w, duals, free):
    spec = next(spec for spec in SPECS if spec.at_most == at_most)
    tile, budget, _ = make_tile(w, spec, any_legal_mask(spec), None, duals[:4], duals[4:])
    for codes in (np.ones(16, np.uint8), np.array(free, np.uint8)):
        tile.free[:], tile.free_t[:] = codes, codes.reshape(4, 4).T.ravel()
        assert is_proved(tile, budget) == satisfies_slackness(tile, budget)


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_a_proof_is_seen_and_one_wrong_entry_or_line_is_too(spec):
    rng = np.random.default_rng(0)
    u, v = rng.integers(1, 9, spec.rows).astype(float), rng.integers(1, 9, spec.cols).astype(float)
    mask = any_legal_mask(spec)
    if spec.at_most:
        u[mask.sum(1) < spec.row_keep] = 0.0
        v[mask.sum(0) < spec.col_keep] = 0.0
    w = np.add.outer(u, v)  # ties everywhere
    tile, budget, _ = make_tile(w, spec, mask, None, u, v)
    assert is_proved(tile, budget)
    for i, j in np.ndindex(w.shape):
        at = i * spec.cols + j
        tile.w[at] = np.nextafter(w[i, j], -1.0 if mask[i, j] else np.inf)
        assert not is_proved(tile, budget)
        tile.w[at] = w[i, j]
    if spec.at_most and mask.size > 1:
        tile.u[0], tile.w[: spec.cols] = -1.0, v - 1.0
        assert not is_proved(tile, budget)


def slow_centre(w, mask, free, u, v, row_keep, col_keep, at_most):
    """Move row duals, then column duals, to the middle of their feasible intervals, by loops over lines.

    Where an interval has one bound only, at least 1/16 of the line's largest free score away from it.
    """
    u, v = u.copy(), v.copy()
    for own_duals, cross_duals, scores, kept, allowed, keep in (
        (u, v, w, mask, free, row_keep),
        (v, u, w.T, mask.T, free.T, col_keep),
    ):
        for line in range(len(own_duals)):
            rest = scores[line] - cross_duals
            upper = min([np.inf, *rest[allowed[line] & kept[line]]])
            lower = max([0.0 if at_most else -np.inf, *rest[allowed[line] & ~kept[line]]])
            margin = max([0.0, *scores[line][allowed[line]]]) / 16
            if at_most and kept[line].sum() < keep:
                own_duals[line] = 0.0
            elif lower == -np.inf:
                own_duals[line] = min(own_duals[line], upper - margin)
            elif upper == np.inf:
                own_duals[line] = max(own_duals[line], lower + margin)
            else:
                own_duals[line] = lower + 0.5 * (upper - lower)
            own_duals[line] = max(0.0, own_duals[line]) if at_most else own_duals[line]
    return u, v


@pytest.mark.parametrize("spec", SPECS, ids=str)
@pytest.mark.parametrize("kind", ["integers", "zeros", "wide", "all kept", "nothing kept"])
def test_duals_are_centred(spec, kind):
    rng = np.random.default_rng(1)
    shape = (spec.rows, spec.cols)
    w = np.zeros(shape) if kind == "zeros" else rng.integers(0, 9, shape) * (1e-300 if kind == "wide" else 1.0)
    w[0] *= 1e290 if kind == "wide" else 1.0
    mask, free = any_legal_mask(spec), rng.random(shape) < 0.8
    mask = np.ones(shape, bool) if kind == "all kept" else mask & (kind != "nothing kept")
    u, v = rng.integers(-3, 3, spec.rows).astype(float), rng.integers(-3, 3, spec.cols).astype(float)
    tile, budget, _ = make_tile(w, spec, mask, free, u, v)
    centre(tile, budget)
    expected = slow_centre(w, mask, free, u, v, spec.row_keep, spec.col_keep, spec.at_most)
    assert np.array_equal(tile.u, expected[0])
    assert np.array_equal(tile.v, expected[1])
    assert np.array_equal(mask_of(tile, budget), mask)
