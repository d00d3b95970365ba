"""Weights that torch computes from other parameters stay dense, and the reason has the call that removes them."""

import pytest
import torch
from torch.nn.utils import parametrizations, prune

from masksmith.layouts import Candidate, SelectionError, select, with_layouts
from masksmith.patterns import parse

PATTERN = parse("2:4")
REMOVE_PARAMETRIZATIONS = "torch.nn.utils.parametrize.remove_parametrizations(layer, 'weight')"
REPARAMETRIZED = {
    "prune": (lambda layer: prune.l1_unstructured(layer, "weight", 0.3), "torch.nn.utils.prune.remove"),
    "weight_norm": (torch.nn.utils.weight_norm, "torch.nn.utils.remove_weight_norm"),
    "spectral_norm": (torch.nn.utils.spectral_norm, "torch.nn.utils.remove_spectral_norm"),
    "parametrized weight_norm": (parametrizations.weight_norm, REMOVE_PARAMETRIZATIONS),
    "parametrized spectral_norm": (parametrizations.spectral_norm, REMOVE_PARAMETRIZATIONS),
    "orthogonal": (parametrizations.orthogonal, REMOVE_PARAMETRIZATIONS),
}


def model(reparametrize):
    return torch.nn.ModuleDict({"first": reparametrize(torch.nn.Linear(8, 8)), "last": torch.nn.Linear(8, 8)})


def candidates(module):
    return with_layouts([Candidate(name, tuple(value.shape), "F32") for name, value in module.state_dict().items()])


@pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm`")
@pytest.mark.parametrize("kind", REPARAMETRIZED)
def test_parameters_from_which_a_weight_is_computed_stay_dense(kind):
    reparametrize, remove = REPARAMETRIZED[kind]
    tensors = candidates(model(reparametrize))
    selection = select(tensors, PATTERN)
    assert selection.chosen == ["last.weight"]
    matrices = [tensor.name for tensor in tensors if len(tensor.shape) > 1 and tensor.name != "last.weight"]
    assert matrices
    for name in matrices:
        assert remove in selection.skipped[name]
        with pytest.raises(SelectionError, match="computes 'weight' from several parameters"):
            select(tensors, PATTERN, layers=name)


def test_a_number_of_a_parametrization_is_none_of_a_block():
    tensors = candidates(model(parametrizations.spectral_norm))
    assert any(".parametrizations.weight.0." in tensor.name for tensor in tensors)
    assert "outside the model's blocks" not in select(tensors, PATTERN).skipped.values()


def test_a_name_of_one_part_alone_is_that_of_a_weight():
    tensors = with_layouts([Candidate(f"layers.0.mixer.{name}", (8, 8), "F32") for name in ("weight_v", "weight_orig")])
    assert [tensor.unsupported_reason for tensor in tensors] == [None, None]
