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
    assert "may be used as 'x @ w'; give its layout, 'out in' or 'in out'" in skipped["scaled.table"]
    assert "a kernel, which a mask does not reach" in skipped["recurrent.weight_ih_l0"]
    sparsifier.bake()
    with pytest.raises(
        InputError, match=r"'recurrent.weight_hh_l0' cannot be masked: LSTM passes its weights to a kernel"
    ):
        Sparsifier(model, "2:4", ms.solve, None, layers="recurrent.weight_hh_l0")


class Rotation(torch.nn.Module):
    """Parameters that are used as `x @ w`: one of the module's own, and one in a list."""

    def __init__(self):
        super().__init__()
        self.turn = torch.nn.Parameter(torch.randn(8, 16))
        self.parts = torch.nn.ParameterList([torch.randn(16, 8)])


@pytest.mark.parametrize("name", ["turn", "parts.0"])
def test_a_matrix_that_is_no_layers_weight_is_masked_along_the_axis_that_is_given(name):
    model = Rotation()
    weight = model.get_parameter(name).detach().clone()
    with pytest.raises(InputError, match=f"'{name}' cannot be masked: not the weight of a layer, .* 'x @ w'; give its"):
        Sparsifier(model, "2:4", ms.solve, None, layers=name)
    sparsifier = Sparsifier(model, "2:4", ms.solve, None, layers=name, layouts={name: "in out"})
    assert list(sparsifier.masks) == [name]
    assert torch.equal(sparsifier.masks[name].T, ms.solve(weight.abs().T.contiguous(), "2:4").mask)
    with pytest.raises(InputError, match="a layout is given for 'no', but no tensor has this name"):
        Sparsifier(Rotation(), "2:4", ms.solve, None, layers=name, layouts={"no": "in out"})


def test_matrices_that_are_named_as_those_of_layers_are_masked_along_their_last_axis():
    model = torch.nn.ModuleDict({"cell": torch.nn.GRUCell(8, 8), "last": torch.nn.Linear(8, 8)})
    weight = model["cell"].weight_ih.detach().clone()
    sparsifier = Sparsifier(model, "2:4", ms.solve, None, layers="cell.weight_ih")
    assert torch.equal(sparsifier.masks["cell.weight_ih"], ms.solve(weight.abs(), "2:4").mask)
