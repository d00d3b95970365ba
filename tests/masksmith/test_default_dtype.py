"""A default dtype of torch, as training scripts and Transformers set it, changes no result."""

import copy

import numpy as np
import pytest
import torch

import masksmith as ms

torch.manual_seed(0)
INPUTS = torch.randn(512, 64) * 100
WEIGHT = torch.randn(32, 64)
GRAM = INPUTS.T @ INPUTS
MASK = ms.solve(WEIGHT.abs(), "2:8").mask
BATCH = {"inputs": torch.randn(4, 64, 16), "attention_mask": torch.arange(64) < torch.tensor([[8], [64], [64], [64]])}
STATISTICS = ("norms", "gram", "activations", "gradient", "gradient_rms")


class Block(torch.nn.Module):
    """A layer with a gradient, and one without."""

    def __init__(self):
        super().__init__()
        self.layer, self.detached = (torch.nn.Linear(16, 16, dtype=torch.float32) for _ in range(2))

    def forward(self, inputs, attention_mask):
        return inputs + self.layer(inputs) + self.detached(inputs).detach()


class Model(torch.nn.Module):
    """Two blocks."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.blocks = torch.nn.ModuleList(Block() for _ in range(2))

    def forward(self, inputs, attention_mask):
        for block in self.blocks:
            inputs = block(inputs, attention_mask)
        return inputs


MODEL = Model()


def statistics():
    kinds = ("norms", "gram", "activations", "gradients")
    gathered = ms.calibrate(
        MODEL, [BATCH], gather=kinds, loss=lambda model, batch: model(**batch).square().sum(), max_samples=64
    )
    return np.concatenate(
        [
            getattr(gathered[f"blocks.1.{name}.weight"], kind).ravel()
            for name in ("layer", "detached")
            for kind in STATISTICS
        ]
    )


def pruned_weights():
    model = copy.deepcopy(MODEL)
    ms.prune(model, [BATCH], "2:4", tune_steps=2)
    return torch.cat([parameter.detach().ravel() for parameter in model.parameters()])


USES = {
    "reconstruct with factorisations": lambda: ms.reconstruct(WEIGHT, MASK, GRAM, tolerance=0).weight,
    "reconstruct": lambda: ms.reconstruct(WEIGHT, MASK, GRAM).weight,
    "admm": lambda: ms.admm(WEIGHT, GRAM, "2:8", max_rounds=6).weight,
    "refine": lambda: ms.refine(WEIGHT, MASK, GRAM, "2:8").mask,
    "sipp": lambda: ms.sipp(WEIGHT, INPUTS),
    "calibrate": statistics,
    "prune": pruned_weights,
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
