"""Groups run along the axis that the layer's product sums over, whatever the order of the weight's axes."""

import pytest
import torch
import transformers

import masksmith as ms
from masksmith import adapters


class Experts(torch.nn.Module):
    """A module of its own with a stack of matrices `[in, out]`."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.randn(3, 8, 16))


def kept_of_four(mask, axis):
    return set((mask != 0).movedim(axis, -1).reshape(-1, 4).sum(1).tolist())


LAYERS = {
    "Conv1D of transformers": (transformers.pytorch_utils.Conv1D(24, 16), 0),
    "ConvTranspose1d": (torch.nn.ConvTranspose1d(16, 8, 3), 0),
    "ConvTranspose2d": (torch.nn.ConvTranspose2d(16, 8, 3), 0),
    "Conv1d": (torch.nn.Conv1d(16, 8, 3), 1),
    "Linear": (torch.nn.Linear(16, 8), 1),
}


@pytest.mark.parametrize("layer", LAYERS)
def test_the_pruning_method_groups_the_summed_axis(layer):
    module, axis = LAYERS[layer]
    adapters.MaskPruning.apply(module, "weight", "2:4")
    assert kept_of_four(module.weight_mask, axis) == {2}
    adapters.MaskPruning.apply(module, "weight", "1:4")  # in a container of pruning methods
    assert kept_of_four(module.weight_mask, axis) == {1}


def test_a_module_that_does_not_show_its_axes_is_refused_unless_they_are_given():
    with pytest.raises(ms.PatternError, match=r"'weight' has 3 dimensions, and Experts does not show .* pass layout="):
        adapters.MaskPruning.apply(Experts(), "weight", "2:4")
    experts = Experts()
    adapters.MaskPruning.apply(experts, "weight", "2:4", layout="stack in out")
    assert kept_of_four(experts.weight_mask, 1) == {2}
    with pytest.raises(ms.PatternError, match="a transposed convolution of several groups"):
        adapters.MaskPruning.apply(torch.nn.ConvTranspose2d(8, 8, 3, groups=2), "weight", "2:4")


def test_functions_without_a_module_take_the_layout():
    weight = torch.randn(16, 24)
    for mask in (
        adapters.MaskCalculator("2:4", layout="in out")(weight),
        adapters.keep_mask(weight.abs(), "2:4", layout="in out"),
        ~adapters.drop_mask(weight.abs(), "2:4", layout="in out"),
    ):
        assert kept_of_four(mask, 0) == {2}
    with pytest.raises(ms.PatternError, match="must say 'out' and 'in' once each"):
        adapters.MaskCalculator("2:4", layout="in in")
