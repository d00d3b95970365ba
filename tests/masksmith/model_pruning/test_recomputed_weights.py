"""Weights that hooks compute from other parameters before each pass, and parameters without a shape."""

import pytest
import torch
from torch.nn.utils import prune as torch_prune, spectral_norm, weight_norm

import masksmith as ms

RECOMPUTED = {
    "weight_orig": lambda layer: torch_prune.l1_unstructured(layer, "weight", 0.5),
    "weight_v": weight_norm,
    "weight_orig of spectral_norm": spectral_norm,
}


class Block(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last_v = torch.nn.Linear(16, 16), torch.nn.Parameter(torch.randn(16, 16))

    def forward(self, inputs):
        return self.first(inputs) @ self.last_v


def model():
    torch.manual_seed(0)
    return torch.nn.Sequential(Block(), Block())


def batches():
    return [torch.randn(2, 64, 16, generator=torch.Generator().manual_seed(1))]


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
@pytest.mark.parametrize("few_tokens", ["refuse", "without data"])
@pytest.mark.parametrize("kind", RECOMPUTED)
def test_a_weight_that_a_hook_computes_is_refused_unless_it_is_excluded(kind, few_tokens):
    recomputed = model()
    RECOMPUTED[kind](recomputed[1].first)
    with pytest.raises(ms.PruningError, match=r"its layer is parametrized.*or exclude it") as caught:
        ms.prune(recomputed, batches(), "2:4", update=None, few_tokens=few_tokens)
    assert caught.value.name.startswith("1.first.weight_")
    report = ms.prune(recomputed, batches(), "2:4", update=None, few_tokens=few_tokens, exclude="1.first.weight_*")
    assert sorted(report.masks) == ["0.first.weight", "0.last_v", "1.last_v"]


def test_lazy_layers_are_refused_until_they_have_run():
    lazy = torch.nn.Sequential(torch.nn.LazyLinear(16), model())
    with pytest.raises(ms.PruningError, match="its shape is not known before its layer has run") as caught:
        ms.prune(lazy, batches(), "2:4", update=None)
    assert caught.value.name == "0.weight"
    lazy(batches()[0])
    assert len(ms.prune(lazy, batches(), "2:4", update=None, blocks="1").masks) == 4
