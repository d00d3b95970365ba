"""Weights with products that are counted, and uses of which the inputs are not known."""

import pytest
import torch
from torch.nn import functional

import masksmith as ms

LOST = {
    "copy": lambda x, w: functional.linear(3 * x, w * 1.0),
    "cast": lambda x, w: functional.linear(x.double(), w.double()).float(),
    "convolution": lambda x, w: functional.conv1d(x.mT, w[:, :, None]).mT,
    "stack": lambda x, w: functional.linear(x, torch.stack([w, w])[0]),
    "mul": lambda x, w: (x[..., None, :] * w).sum(-1),
}
FOLLOWED = {
    "norm": lambda x, w: x * (w + torch.ones(16, 16)).norm(),
    "rows": lambda x, w: x / w.float().square().sum(1),
    "flag": lambda x, w: x if bool(w.isfinite().all()) else x * 0,
}


class Block(torch.nn.Module):
    """A linear layer, and another use of its weight."""

    def __init__(self, use):
        super().__init__()
        self.layer, self.use = torch.nn.Linear(16, 16), use

    def forward(self, inputs):
        return self.layer(inputs) + self.use(inputs, self.layer.weight)


def model(use):
    torch.manual_seed(0)
    return torch.nn.Sequential(Block(use), Block(use))


def batches():
    return [torch.randn(2, 64, 16, generator=torch.Generator().manual_seed(1))]


@pytest.mark.parametrize("use", LOST)
def test_a_weight_with_inputs_that_are_not_known_is_refused(use):
    with pytest.raises(ms.PruningError, match=r"not all of its inputs are known: .*; exclude the weight") as caught:
        ms.prune(model(LOST[use]), batches(), "2:4", update=None)
    assert caught.value.name == "0.layer.weight"


def test_such_a_weight_is_masked_by_its_values_alone_on_request():
    pruned, report = model(LOST["copy"]), None
    report = ms.prune(pruned, batches(), "2:4", few_tokens="without data")
    assert set(report.without_data) == {"0.layer.weight", "1.layer.weight"}
    dense = model(LOST["copy"])[0].layer.weight.detach()
    assert torch.equal(pruned[0].layer.weight, dense * ms.solve(dense.abs(), "2:4").mask)


@pytest.mark.parametrize("use", FOLLOWED)
def test_numbers_computed_from_a_weight_are_no_products(use):
    report = ms.prune(model(FOLLOWED[use]), batches(), "2:4", update=None)
    assert [weight.tokens for block in report.blocks for weight in block.weights] == [(128,), (128,)]
