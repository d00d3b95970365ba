"""A default device of torch moves no operand, and no number that is drawn by a generator of the CPU."""

import numpy as np
import pytest
import torch

import masksmith as ms
from masksmith.adapters import custom_from_mask

torch.manual_seed(0)
MODEL = torch.nn.Sequential(torch.nn.Linear(128, 128))
INPUTS = torch.randn(256, 128)
WEIGHT = MODEL[0].weight.detach()
GRAM = INPUTS.T @ INPUTS
MASK = torch.rand(128, 128) > 0.2


def statistics_of(kinds):
    gathered = ms.calibrate(MODEL, [INPUTS], gather=kinds, loss=lambda model, batch: model(batch).square().sum())
    return [
        getattr(gathered["0.weight"], name) for name in ("norms", "gram", "activations", "gradient", "gradient_rms")
    ]


USES = {
    "calibrate": lambda: statistics_of(("norms", "gram", "activations", "gradients")),
    "reconstruct": lambda: ms.reconstruct(WEIGHT, MASK, GRAM).weight,
    "admm": lambda: ms.admm(WEIGHT, GRAM, "2:4", max_rounds=6).weight,
    "refine": lambda: ms.refine(WEIGHT, ms.solve(WEIGHT.abs(), "2:4").mask, GRAM, "2:4").mask,
    "sipp": lambda: ms.sipp(WEIGHT, INPUTS),
    "wanda": lambda: ms.wanda(WEIGHT, INPUTS.norm(dim=0).numpy()),
    "custom_from_mask": lambda: custom_from_mask(torch.nn.Linear(128, 128, device="cpu"), MASK.numpy()).weight_mask,
}


@pytest.mark.parametrize("use", USES)
def test_results_do_not_depend_on_the_default_device(use):
    expected = USES[use]()
    with torch.device("meta"):
        result = USES[use]()
    if use == "calibrate":
        for one, other in zip(result, expected, strict=True):
            np.testing.assert_array_equal(one, other)
    else:
        assert torch.equal(result, expected)
