"""Solutions that carry the pruned weight, and the mask as bits."""

import numpy as np
import pytest
import torch

import masksmith as ms

RNG = np.random.default_rng(5)
WEIGHT = RNG.standard_normal((24, 21)).astype(np.float32)
CONVOLUTION = RNG.standard_normal((8, 8, 3, 3)).astype(np.float32)


def bits(packed, width):
    return np.unpackbits(np.asarray(packed), axis=-1, count=width, bitorder="little").astype(bool)


@pytest.mark.parametrize("pattern", ["transposable 4:8", "2:4", "block 4x4 50%", "30%"])
def test_a_weight_comes_back_pruned_and_its_mask_packed(pattern):
    solution = ms.solve(ms.magnitude(WEIGHT), pattern, weight=WEIGHT)
    np.testing.assert_array_equal(solution.pruned, WEIGHT * solution.mask)
    assert solution.pruned.dtype == WEIGHT.dtype
    np.testing.assert_array_equal(bits(solution.packed, 21), solution.mask)
    assert solution.packed.shape == (24, 3)


@pytest.mark.parametrize("view", ["channels-last", "flat"])
def test_convolutions_keep_their_shape(view):
    solution = ms.solve(ms.magnitude(CONVOLUTION), "transposable 4:8", weight=CONVOLUTION, view=view)
    np.testing.assert_array_equal(solution.pruned, CONVOLUTION * solution.mask)
    np.testing.assert_array_equal(bits(solution.packed, 3), solution.mask)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_torch_weights_stay_torch(dtype):
    weight = torch.nn.Parameter(torch.from_numpy(WEIGHT).to(dtype))
    solution = ms.solve(ms.magnitude(weight), "transposable 4:8", weight=weight)
    assert (solution.pruned.dtype, solution.pruned.requires_grad, solution.packed.dtype) == (dtype, False, torch.uint8)
    assert torch.equal(solution.pruned, weight.detach() * solution.mask)
    np.testing.assert_array_equal(bits(solution.packed, 21), solution.mask.numpy())


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_torch_weights_of_eight_bits_are_pruned(dtype):
    weight = torch.from_numpy(WEIGHT).to(dtype)
    scores = ms.magnitude(weight)
    assert torch.equal(scores, weight.float().abs())
    solution = ms.solve(scores, "transposable 4:8", weight=weight)
    assert solution.pruned.dtype == dtype
    assert torch.equal(solution.pruned.float(), weight.float() * solution.mask)


def test_a_dtype_without_zero_holds_no_pruned_weights():
    """The byte 0 of this dtype is 2^-127."""
    weight = torch.ones(4, 8).to(torch.float8_e8m0fnu)
    with pytest.raises(ms.ScoresError, match="tensor 'w': the weight's dtype float8_e8m0fnu has no zero"):
        ms.solve(torch.rand(4, 8), "2:4", weight=weight, name="w")


def test_what_is_dropped_is_zero_whatever_it_was():
    weight = WEIGHT.copy()
    solution = ms.solve(ms.magnitude(weight), "transposable 4:8")
    weight[~solution.mask] = np.inf
    again = ms.solve(ms.magnitude(WEIGHT), "transposable 4:8", weight=weight)
    assert np.isfinite(again.pruned).all()


def test_nothing_is_carried_unless_asked_for():
    solution = ms.solve(ms.magnitude(WEIGHT), "transposable 4:8")
    assert solution.pruned is None
    assert solution.packed is None


def test_a_weight_of_another_shape_is_refused():
    with pytest.raises(ms.ScoresError, match=r"'q': the weight's shape \[21, 24\] differs from .* \[24, 21\]"):
        ms.solve(ms.magnitude(WEIGHT), "transposable 4:8", weight=WEIGHT.T, name="q")
