"""A default dtype of torch, as training scripts and Transformers set it, changes no result."""

import numpy as np
import pytest
import torch

import masksmith as ms

torch.manual_seed(0)
INPUTS = torch.randn(512, 64) * 100
WEIGHT = torch.randn(32, 64)
GRAM = INPUTS.T @ INPUTS
MASK = ms.solve(WEIGHT.abs(), "2:8").mask

USES = {
    "reconstruct with factorisations": lambda: ms.reconstruct(WEIGHT, MASK, GRAM, tolerance=0).weight,
    "reconstruct": lambda: ms.reconstruct(WEIGHT, MASK, GRAM).weight,
    "admm": lambda: ms.admm(WEIGHT, GRAM, "2:8", max_rounds=6).weight,
    "refine": lambda: ms.refine(WEIGHT, MASK, GRAM, "2:8").mask,
    "sipp": lambda: ms.scores.sipp(WEIGHT, INPUTS),
    "wanda": lambda: ms.wanda(WEIGHT, INPUTS.norm(dim=0).numpy()),
}


@pytest.fixture
def default_dtype():
    """Return `torch.set_default_dtype`; the default is float32 again after the test."""
    yield torch.set_default_dtype
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("use", USES)
def test_results_do_not_depend_on_the_default_dtype(use, dtype, default_dtype):
    expected = USES[use]()
    default_dtype(dtype)
    result = USES[use]()
    assert result.dtype == expected.dtype
    np.testing.assert_array_equal(result, expected)
