"""Convolutions as flat matrices: the masks of the reshaped weight, in the weight's shape."""

import numpy as np
import pytest
import torch

import masksmith as ms

KERNEL = np.abs(np.random.default_rng(3).standard_normal((16, 8, 3, 3))).astype(np.float32)


@pytest.mark.parametrize("pattern", ["2:4", "transposable 4:8", "30%", "block 4x4 50%"])
def test_a_flat_solve_is_the_solve_of_the_reshaped_weight(pattern):
    flat = ms.solve(KERNEL, pattern, view="flat")
    there = ms.solve(KERNEL.reshape(16, -1), pattern)
    np.testing.assert_array_equal(flat.mask, there.mask.reshape(KERNEL.shape))
    assert flat.objective == there.objective
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
