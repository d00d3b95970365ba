"""Convolutions as flat matrices: the masks of the reshaped weight, in the weight's shape."""

import numpy as np
import pytest
import torch

import masksmith as ms

KERNEL = np.abs(np.random.default_rng(3).standard_normal((16, 8, 3, 3))).astype(np.float32)


@pytest.mark.parametrize("pattern", ["2:4", "transposable 4:8", "30%", "block 4x4 50%"])
def test_a_flat_solve_is_the_solve_of_the_reshaped_weight(pattern):
    flat = ms.solve(KERNEL, pattern, view="flat")
    solution = ms.solve(KERNEL.reshape(16, -1), pattern)
    np.testing.assert_array_equal(flat.mask, solution.mask.reshape(KERNEL.shape))
    assert flat.objective == solution.objective
    assert ms.verify(flat.mask, pattern, view="flat")
    many = ms.solve_many({"a": KERNEL, "b": torch.from_numpy(KERNEL)}, pattern, view="flat")
    np.testing.assert_array_equal(many["a"].mask, flat.mask)
    assert many["b"].mask.shape == KERNEL.shape


def test_what_else_is_asked_is_flat_too():
    keep = np.zeros(KERNEL.shape, bool)
    keep[0, 0, 0] = True
    first = ms.solve(KERNEL, "transposable 4:8", view="flat", keep_duals=True)
    forced = ms.solve(KERNEL, "transposable 4:8", view="flat", must_keep=keep, warm_start=first, hysteresis=0.1)
    assert forced.mask[keep].all()
    assert forced.unshifted_objective < forced.objective


def test_channels_stay_last_unless_asked_and_other_views_are_refused():
    assert not ms.verify(ms.solve(KERNEL, "2:4").mask, "2:4", view="flat")
    with pytest.raises(ms.SolverError, match="view='sideways'"):
        ms.solve(KERNEL, "2:4", view="sideways")
    with pytest.raises(ms.SolverError, match="view='sideways'"):
        ms.verify(KERNEL > 1, "2:4", view="sideways")


@pytest.mark.parametrize("pattern", ["2:4", ms.NM(2, 4, axis="out"), "30%", "block 4x4 50%"], ids=repr)
@pytest.mark.parametrize("view", ["channels-last", "flat"])
def test_a_bad_score_is_named_by_its_own_index(pattern, view):
    bad = KERNEL.copy()
    bad[3, 2, 1, 0] = np.nan
    with pytest.raises(ms.ScoresError, match=r"NaN at \[3, 2, 1, 0\]"):
        ms.solve(bad, pattern, view=view)


def test_blocks_with_a_nested_pattern_are_flat_inside_too():
    pattern = "block 4x4 50% nested 2:4"
    flat = ms.solve(KERNEL, pattern, view="flat")
    np.testing.assert_array_equal(flat.mask, ms.solve(KERNEL.reshape(16, -1), pattern).mask.reshape(KERNEL.shape))
    assert ms.verify(flat.mask, pattern, view="flat")


def test_tied_weights_are_solved_once_in_every_view():
    many = ms.solve_many({"a": KERNEL, "b": KERNEL.copy()}, "2:4", view="flat")
    assert many["a"] is many["b"]


def test_shapes_in_messages_are_the_tensors_own():
    with pytest.raises(ms.ScoresError, match=r"shape \[16, 8, 3\] differs from the scores' \[16, 8, 3, 3\]"):
        ms.solve(KERNEL, "2:4", view="flat", must_keep=KERNEL[..., 0] > 1)


@pytest.mark.parametrize("shape", [(), (8,)])
@pytest.mark.parametrize("axis", ["in", "out"])
def test_too_few_dimensions_are_refused_along_both_axes(axis, shape):
    pattern = ms.NM(2, 4, axis=axis)
    for call in (ms.solve, ms.verify):
        with pytest.raises(ms.PatternError, match="a weight has two"):
            call(np.ones(shape), pattern)
