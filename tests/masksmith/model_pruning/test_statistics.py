"""Statistics of inputs whose squares are no numbers of float32."""

import pytest
import torch

import masksmith as ms
from masksmith.calibration.gram import product_of


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("size", [1.0, 1e-10, 1e-25, 1e-38])
def test_products_of_small_inputs_are_not_0(size, dtype):
    inputs = (torch.randn(50, 8, generator=torch.Generator().manual_seed(0)) * size).to(dtype)
    exact = inputs.double().T @ inputs.double()
    torch.testing.assert_close(product_of(inputs).double(), exact, rtol=1e-4, atol=1e-5 * 50 * size**2)


def test_products_of_zeros_and_of_numbers_that_are_not_finite_stay_so():
    assert not product_of(torch.zeros(4, 8)).any()
    assert product_of(torch.zeros(0, 8)).shape == (8, 8)
    assert not product_of(torch.tensor([[1e-30, float("nan")]])).isfinite().all()


class Block(torch.nn.Module):
    """A residual linear layer."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(16, 16, bias=False)

    def forward(self, inputs):
        return inputs + self.layer(inputs)


def test_a_weight_with_small_inputs_is_pruned_by_them():
    torch.manual_seed(0)
    inputs, masks = torch.randn(8, 16, 16), []
    for factor in (1.0, 2.0**-80):
        torch.manual_seed(0)
        model = torch.nn.Sequential(Block(), Block())
        report = ms.prune(model, [inputs * factor], "2:4", update=None, tune_steps=0)
        assert report.blocks[0].weights[0].silent_inputs == 0
        masks.append(report.masks["0.layer.weight"])
    assert torch.equal(*masks)
