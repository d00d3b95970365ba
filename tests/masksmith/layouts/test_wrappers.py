"""Names of wrapped models are those of the plain model, wherever a model is taken."""

import pytest
import torch
from torch.optim.swa_utils import AveragedModel

from masksmith import calibrate, solve
from masksmith.layouts import plain_path, without_wrappers
from masksmith_client.submission.prepare import prepare
from masksmith_client.training import Sparsifier


def plain() -> torch.nn.Sequential:
    return torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.Linear(8, 8))


def compiled_inside() -> torch.nn.Module:
    model = plain()
    model[1] = torch.compile(model[1], backend="eager")
    return model


def fabric(model: torch.nn.Module) -> torch.nn.Module:
    from lightning import Fabric

    return Fabric(accelerator="cpu", devices=1).setup(model)


WRAPPED = {
    "compile": lambda: torch.compile(plain(), backend="eager"),
    "DataParallel": lambda: torch.nn.DataParallel(plain()),
    "AveragedModel": lambda: AveragedModel(plain()),
    "Fabric": lambda: fabric(plain()),
    "Fabric, compiled": lambda: fabric(torch.compile(plain(), backend="eager")),
    "compiled DataParallel": lambda: torch.compile(torch.nn.DataParallel(plain()), backend="eager"),
}


MODELS = {"plain": plain, "compiled inside": compiled_inside, **WRAPPED}


@pytest.mark.parametrize("model", MODELS)
def test_the_client_sends_weights_under_the_names_of_the_plain_model(model):
    prepared = prepare(MODELS[model](), "2:4", local=True)
    assert [weight.name for weight in prepared.weights] == ["0.weight", "1.weight"]
    assert all(weight.layout.rule == "model" for weight in prepared.weights)


@pytest.mark.parametrize("model", WRAPPED)
@pytest.mark.parametrize("layer", ["1", "1.weight"])
def test_calibration_and_training_find_layers_under_the_names_of_the_plain_model(model, layer):
    wrapped = WRAPPED[model]()
    assert list(calibrate(wrapped, [torch.randn(4, 8)], layers=layer, progress=False)) == ["1.weight"]
    assert list(Sparsifier(wrapped, "2:4", masks=solve, refresh=None, layers=layer).masks) == ["1.weight"]


@pytest.mark.parametrize("model", WRAPPED)
def test_wrappers_are_taken_off(model):
    inner = without_wrappers(WRAPPED[model]())
    assert type(inner) is torch.nn.Sequential
    assert without_wrappers(inner) is inner


def test_a_module_that_is_named_module_is_no_wrapper():
    model = torch.nn.ModuleDict({"module": plain()})
    assert plain_path(model, "module.0.weight") == "module.0.weight"
    assert without_wrappers(model) is model
