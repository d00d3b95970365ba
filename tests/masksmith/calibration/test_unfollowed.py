"""Weights with products that are counted, and uses of which the inputs are not known."""

import pytest
import torch
from torch.nn import functional

import masksmith as ms

LOST = {
    "stack": lambda x, w: functional.linear(x, torch.stack([w, w])[0]),
    "flip": lambda x, w: functional.linear(x, w.flip(1)),
    "index_select": lambda x, w: functional.linear(x, w.index_select(0, torch.arange(8).flip(0))),
    "softmax": lambda x, w: functional.linear(x, w.softmax(1)),
    "slice": lambda x, w: functional.linear(x, w[:4].flip(1)),
    "mul": lambda x, w: (x[..., None, :] * w).sum(-1),
    "addbmm": lambda x, w: torch.addbmm(torch.zeros(3, 8), x, w.expand(5, 8, 8)),
    "keys": lambda x, w: functional.scaled_dot_product_attention(x, w.expand(5, 8, 8), x[:, :1].expand(5, 8, 8)),
    "keyword": lambda x, w: torch.addcmul(torch.zeros(()), x[..., None, :], tensor2=w),
}  # fmt: skip
FOLLOWED = {
    "norm": lambda x, w: x * w.norm(),
    "mean": lambda x, w: x + (w.float() * 2).abs().mean(),
    "rows": lambda x, w: x / w.square().sum(1),
    "lookup": lambda x, w: x + functional.embedding(torch.tensor([1, 2, 3]), w),
    "shape": lambda x, w: x + torch.zeros_like(w)[0] + w.new_ones(8),
    "distance": lambda x, w: x + functional.mse_loss(w, torch.ones(8, 8)),
    "flag": lambda x, w: x if bool(w.isfinite().all()) else x * 0,
}


class Using(torch.nn.Module):
    """A linear layer, and another use of its weight."""

    def __init__(self, use):
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.use = torch.nn.Linear(8, 8), use

    def forward(self, inputs):
        self.used = self.use(inputs, self.layer.weight)
        return self.layer(inputs)


def loss(model, batch):
    return model(batch).square().mean() + model.used.square().mean()


@pytest.mark.parametrize("use", LOST)
def test_a_layer_with_inputs_that_are_not_known_is_skipped(batches, use):
    calibration = ms.calibrate(Using(LOST[use]), batches)
    assert "layer.weight" not in calibration
    assert "which cannot be followed" in calibration.skipped["layer.weight"]


@pytest.mark.parametrize("gather", [("norms",), ("norms", "gradients")])
@pytest.mark.parametrize("use", FOLLOWED)
def test_uses_that_are_no_products_leave_the_statistics_as_they_are(batches, use, gather):
    calibration = ms.calibrate(Using(FOLLOWED[use]), batches, gather=gather, loss=loss)
    assert calibration.skipped == {}
    assert calibration["layer.weight"].samples == 60
