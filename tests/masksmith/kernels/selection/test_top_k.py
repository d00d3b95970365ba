"""The n largest of every group against sorting."""

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from masksmith.kernels.selection.top_k import top_k, top_k_of_four

NO_FORCED = np.zeros((0, 0), np.int8)
VALUES = st.sampled_from([0.0, -0.0, 1e-45, 1e-38, 0.5, 0.5, 1.0, 2.0, 3e38])


def slow_group(scores, forced, keep, at_most):
    """Sort one group; return its mask and dual, or None if no mask is allowed."""
    kept = [k for k, code in enumerate(forced) if code > 0]
    free = sorted((k for k, code in enumerate(forced) if code == 0), key=lambda k: (-scores[k], k))
    if len(kept) > keep or (len(kept) + len(free) < keep and not at_most):
        return None
    chosen, dropped = free[: keep - len(kept)], free[keep - len(kept) :]
    mask = np.isin(np.arange(len(scores)), kept + chosen)
    if not dropped:
        return mask, 0.0
    return mask, min(scores[k] for k in chosen) if chosen else max(scores[k] for k in dropped)


def check(scores, forced, keep, at_most, groups):
    rows, m = len(scores), scores.shape[1] // groups
    mask, duals = np.zeros(scores.shape, np.bool_), np.full((rows, groups), np.nan)
    infeasible = top_k(scores, forced, keep, at_most, mask, duals)
    codes = forced if forced.size else np.zeros(scores.shape, np.int8)
    for index in range(rows * groups):
        row, part = index // groups, slice(index % groups * m, (index % groups + 1) * m)
        slow = slow_group(scores[row, part], codes[row, part], keep, at_most)
        if slow is None:
            assert infeasible == index
            return
        assert mask[row, part].tolist() == slow[0].tolist()
        assert duals[row, index % groups] == slow[1]
    assert infeasible == -1


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("groups", [1, 31, 32, 33, 65])
@pytest.mark.parametrize(("keep", "m"), [(1, 1), (2, 4), (2, 5), (4, 8), (8, 8)])
def test_groups_on_both_sides_of_the_vector_length(dtype, groups, keep, m):
    scores = np.random.default_rng(groups).integers(0, 4, (3, groups * m)).astype(dtype)
    check(scores, NO_FORCED, keep, False, groups)


@settings(max_examples=30, deadline=None)
@given(st.lists(VALUES, min_size=15, max_size=15), st.integers(1, 5))
def test_ties_zeros_and_the_whole_range(values, keep):
    for dtype in (np.float32, np.float64):
        check(np.array(values, dtype).reshape(1, 15), NO_FORCED, keep, False, 3)


@settings(max_examples=30, deadline=None)
@given(
    st.lists(VALUES, min_size=20, max_size=20),
    st.lists(st.sampled_from([0, 0, 0, 1, -1]), min_size=20, max_size=20),
    st.integers(1, 5),
    st.booleans(),
)
def test_forced_entries(values, forced, keep, at_most):
    check(np.array(values, np.float32).reshape(2, 10), np.array(forced, np.int8).reshape(2, 10), keep, at_most, 2)


@settings(max_examples=30, deadline=None)
@given(st.lists(VALUES, min_size=12, max_size=12), st.integers(1, 4))
def test_groups_of_four(values, keep):
    for dtype in (np.float32, np.float64):
        scores, mask, duals = np.array(values, dtype), np.zeros(12, np.bool_), np.full(3, np.nan)
        top_k_of_four(scores, keep, mask, duals)
        for group in range(3):
            part = slice(4 * group, 4 * group + 4)
            slow_mask, slow_dual = slow_group(scores[part], [0] * 4, keep, False)
            assert mask[part].tolist() == slow_mask.tolist()
            assert duals[group] == slow_dual
