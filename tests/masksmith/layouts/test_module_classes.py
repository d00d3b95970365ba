"""Layouts from the classes of a module's layers: clients and training alike."""

import pytest
import torch
from torch.nn.utils import parametrizations

import masksmith as ms
from masksmith_client import InputError
from masksmith_client.submission.prepare import prepare
from masksmith_client.training import Sparsifier


class Mixer(torch.nn.Module):
    """A module of its own, which multiplies with a stack of matrices."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.rand(4, 8, 8))
        self.r_kernel = torch.nn.Parameter(torch.rand(8, 4, 8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.einsum("bi,sio->bso", x, self.weight)


@pytest.fixture
def model() -> torch.nn.Module:
    layers = {
        "mixer": Mixer(),
        "upsample": torch.nn.ConvTranspose1d(8, 16, 4, bias=False),
        "plain": torch.nn.Conv1d(8, 16, 3, bias=False),
        "normed": parametrizations.weight_norm(torch.nn.ConvTranspose1d(8, 16, 4)),
    }
    return torch.nn.ModuleDict({"blocks": torch.nn.ModuleList([torch.nn.ModuleDict(layers)])})


def test_the_client_reads_convolutions_by_their_classes_and_nothing_else_as_one(model: torch.nn.Module) -> None:
    submission = prepare(model, "2:4")
    assert {weight.name: str(weight.layout) for weight in submission.weights} == {
        "blocks.0.upsample.weight": "in out kernel",
        "blocks.0.plain.weight": "out in kernel",
    }
    reasons = {skip.name: skip.reason for skip in submission.skipped}
    assert "remove_parametrizations" in reasons["blocks.0.normed.parametrizations.weight.original1"]
    for name in ("weight", "r_kernel"):
        assert "stacked matrices" in reasons[f"blocks.0.mixer.{name}"]
    with pytest.raises(InputError, match="stacked matrices"):
        prepare(model, "2:4", layers="blocks.0.mixer.weight")
    (weight,) = prepare(model, "2:4", layers="*mixer.weight", layout={"blocks.0.mixer.weight": "stack in out"}).weights
    assert str(weight.layout) == "stack in out"


def test_training_reads_no_other_parameter_as_a_convolution(model: torch.nn.Module) -> None:
    sparsifier = Sparsifier(model, "2:4", masks=ms.solve, refresh=None)
    assert set(sparsifier.masks) == {"blocks.0.upsample.weight", "blocks.0.plain.weight"}
    sparsifier.close()
    with pytest.raises(InputError, match="no linear or convolution layer"):
        Sparsifier(model, "2:4", masks=ms.solve, refresh=None, layers="blocks.0.mixer.weight")


def test_other_classes_named_conv1d_are_read_as_their_bases() -> None:
    from transformers.pytorch_utils import Conv1D

    class_of = {
        "linear": type("Conv1D", (torch.nn.Linear,), {})(8, 16),
        "convolution": type("Conv1D", (torch.nn.Conv1d,), {})(8, 16, 3),
        "transformers": Conv1D(16, 8),
    }
    model = torch.nn.ModuleDict({"blocks": torch.nn.ModuleList([torch.nn.ModuleDict(class_of)])})
    layouts = {weight.name: str(weight.layout) for weight in prepare(model, "2:4").weights}
    assert layouts == {
        "blocks.0.linear.weight": "out in",
        "blocks.0.convolution.weight": "out in kernel",
        "blocks.0.transformers.weight": "in out",
    }


def test_a_state_dict_shows_less(model: torch.nn.Module) -> None:
    submission = prepare(model.state_dict(), "2:4", exclude="*mixer.weight")
    assert {weight.name: str(weight.layout) for weight in submission.weights} == {
        "blocks.0.plain.weight": "out in kernel",
    }
    reasons = {skip.name: skip.reason for skip in submission.skipped}
    assert "a convolution or a transposed one" in reasons["blocks.0.upsample.weight"]
    assert "stacked matrices" in reasons["blocks.0.mixer.r_kernel"]


def test_a_layer_that_is_registered_twice_has_its_layout_under_both_names() -> None:
    class Twice(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.upsample = self.again = torch.nn.ConvTranspose2d(16, 8, 3)
            self.embedding = self.lookup = torch.nn.Embedding(16, 16)

    submission = prepare(Twice(), "2:4")
    assert {weight.name: str(weight.layout) for weight in submission.weights} == {
        "upsample.weight": "in out kernel kernel",
        "again.weight": "in out kernel kernel",
    }
    reasons = {skip.name: skip.reason for skip in submission.skipped}
    assert reasons["lookup.weight"] == reasons["embedding.weight"]
