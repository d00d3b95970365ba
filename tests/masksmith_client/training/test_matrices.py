"""Weights that hold several matrices: attention projections and stacked experts, each masked along its own input."""

import pytest
import torch

import masksmith as ms
from masksmith_client import InputError
from masksmith_client.training import Refresh, Sparsifier


class Experts(torch.nn.Module):
    """Two experts, stored as `[experts, out, in]`: gate and up fused, and down."""

    def __init__(self):
        super().__init__()
        self.gate_up_proj = torch.nn.Parameter(torch.randn(2, 32, 24))
        self.down_proj = torch.nn.Parameter(torch.randn(2, 24, 16))

    def forward(self, inputs):
        gate, up = torch.einsum("bi,eoi->ebo", inputs, self.gate_up_proj).chunk(2, -1)
        return torch.einsum("ebi,eoi->bo", gate.sigmoid() * up, self.down_proj)


def test_attention_projections_are_masked_and_each_is_solved_on_its_own():
    torch.manual_seed(0)
    model = torch.nn.TransformerEncoder(torch.nn.TransformerEncoderLayer(20, 4, 64, batch_first=True), 2)
    weight = model.layers[0].self_attn.in_proj_weight.detach().clone()
    sparsifier = Sparsifier(model, "transposable 4:8", masks=ms.solve, refresh=Refresh(every=1, wait=True))
    names = ("self_attn.in_proj_weight", "self_attn.out_proj.weight", "linear1.weight", "linear2.weight")
    assert sorted(sparsifier.masks) == sorted(f"layers.{block}.{name}" for block in (0, 1) for name in names)
    mask = sparsifier.masks["layers.0.self_attn.in_proj_weight"]
    expected = [ms.solve(part.abs(), "transposable 4:8").mask for part in weight.split(20)]
    assert torch.equal(mask, torch.cat(expected))
    assert all(layer.gap == 0.0 for layer in sparsifier.report().layers)

    inputs = torch.randn(2, 5, 20)
    masked_output = model(inputs)
    masked_output.square().sum().backward()
    torch.optim.SGD(model.parameters(), 1e-3).step()
    sparsifier.step()
    expected_output = model.eval()(inputs)
    sparsifier.bake()
    torch.testing.assert_close(model(inputs), expected_output)
    assert not model.layers[0].self_attn.in_proj_weight[~sparsifier.masks["layers.0.self_attn.in_proj_weight"]].any()


def test_stacked_experts_are_masked_along_their_input():
    torch.manual_seed(0)
    model = torch.nn.ModuleDict({"layers": torch.nn.ModuleList([torch.nn.ModuleDict({"experts": Experts()})])})
    experts = model["layers"][0]["experts"]
    weights = {name: weight.detach().clone() for name, weight in experts.named_parameters()}
    sparsifier = Sparsifier(model, "2:4", masks=ms.solve, refresh=None)
    assert sorted(sparsifier.masks) == ["layers.0.experts.down_proj", "layers.0.experts.gate_up_proj"]
    for name, weight in weights.items():
        expected = torch.stack([ms.solve(matrix.abs(), "2:4").mask for matrix in weight])
        assert torch.equal(sparsifier.masks[f"layers.0.experts.{name}"], expected)
        assert torch.equal(getattr(experts, name), weight * expected)
    [report, _] = sparsifier.report().layers
    assert (report.status, report.gap, report.density) == ("optimal", 0.0, 0.5)


def test_matrices_of_other_modules_stay_dense_and_are_listed():
    class Scaled(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.table = torch.nn.Parameter(torch.randn(8, 8))

    layers = {"first": torch.nn.Linear(8, 8), "second": torch.nn.Linear(8, 8), "last": torch.nn.Linear(8, 8)}
    model = torch.nn.ModuleDict({**layers, "recurrent": torch.nn.LSTM(8, 8), "scaled": Scaled()})
    sparsifier = Sparsifier(model, "2:4", masks=ms.solve, refresh=None)
    skipped = sparsifier.report().skipped
    assert list(sparsifier.masks) == ["second.weight"]
    assert skipped["scaled.table"] == "a parameter of Scaled, which is no linear or convolution layer"
    assert "a kernel, which a mask does not reach" in skipped["recurrent.weight_ih_l0"]
    sparsifier.bake()
    assert list(Sparsifier(model, "2:4", ms.solve, None, layers="scaled.table").masks) == ["scaled.table"]
    with pytest.raises(
        InputError, match=r"'recurrent.weight_hh_l0' cannot be masked: LSTM passes its weights to a kernel"
    ):
        Sparsifier(model, "2:4", ms.solve, None, layers="recurrent.weight_hh_l0")
