"""Arguments of the sparsifier: methods and schedules by name, and what is refused with the model left as it was."""

import pytest
import torch
from support.training_loop import WAITING, perceptron
from torch.nn.utils import prune

import masksmith as ms
from masksmith_client import InputError
from masksmith_client.training import (
    SRSTE,
    CubicDensity,
    DensePhases,
    FallingN,
    Fixed,
    MaskedDecay,
    PruneAndGrow,
    Sparsifier,
    StraightThrough,
    TrainableThresholds,
)  # fmt: skip
from masksmith_client.training.by_name import as_method, as_schedule


@pytest.mark.parametrize(
    ("text", "method"),
    [
        ("fixed", Fixed()),
        ("straight-through", StraightThrough()),
        ("sr-ste", SRSTE()),
        ("sr-ste decay=1e-3", SRSTE(decay=1e-3)),
        ("masked-decay decay=0.5", MaskedDecay(decay=0.5)),
        ("prune-and-grow until=100 fraction=0.2", PruneAndGrow(until=100, fraction=0.2)),
        ("trainable-thresholds", TrainableThresholds()),
    ],
)
def test_methods_by_name(text, method):
    assert as_method(text) == method


@pytest.mark.parametrize(
    ("text", "schedule"),
    [
        ("dense-phases warm_up=3", DensePhases(warm_up=3)),
        ("cubic-density begin=1 end=5 start=0.5", CubicDensity(begin=1, end=5, start=0.5)),
        ("falling-n begin=1 end=5", FallingN(begin=1, end=5)),
    ],
)
def test_schedules_by_name(text, schedule):
    assert as_schedule(text) == schedule


def test_a_sparsifier_by_names(model):
    sparsifier = Sparsifier(model, "2:4", ms.solve, WAITING, "sr-ste", schedule="dense-phases warm_up=2")
    assert (model[2].weight != 0).all()
    sparsifier.step()
    sparsifier.step()
    assert ms.verify(model[2].weight != 0, "2:4")
    assert sparsifier.report().method == "SRSTE"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"method": "nope"}, "method='nope' is not one of: fixed, straight-through, sr-ste"),
        ({"method": "sr-ste rate=1"}, "'rate' is not an option of sr-ste, or is set twice; it has: decay"),
        ({"method": "sr-ste decay=x"}, "decay='x' is not a number"),
        ({"method": "sr-ste decay=-1"}, "decay=-1 must be a finite number"),
        ({"method": "prune-and-grow"}, "needs options: until, such as 'prune-and-grow until=1000'"),
        (
            {"schedule": "falling-n begin=5"},
            "schedule='falling-n begin=5' needs options: end, such as 'falling-n begin=5 end=1000'",
        ),
        ({"schedule": "cubic-density"}, "needs options: begin, end, such as 'cubic-density begin=0 end=1000'"),
        ({"schedule": "falling-n begin=2000"}, "needs options: end, such as 'falling-n begin=2000 end=4000'"),
        ({"method": SRSTE}, "is neither a Method nor one of"),
        ({"schedule": "nope"}, "schedule='nope' is not one of"),
        ({"schedule": 5}, "schedule=5 is neither a Schedule"),
        ({"pattern": "3 of 4"}, "3 of 4"),
        ({"pattern": 4}, "pattern=4 is neither a pattern nor a text"),
        ({"layers": "nope"}, "no linear or convolution layer is called 'nope'"),
        ({"layers": []}, r"layers=\[\] names no layer"),
        ({"exclude": "nope"}, "no linear or convolution layer is called 'nope'"),
        ({"optimizer": "sgd", "method": "masked-decay"}, "'sgd' is not a torch optimizer"),
        ({"model": 5}, "model=int is not a torch.nn.Module"),
    ],
)
def test_bad_arguments_are_refused_and_the_model_stays_as_it_was(model, arguments, message):
    before, state = type(model[2]), {name: value.clone() for name, value in model.state_dict().items()}
    arguments = {"model": model, "pattern": "2:4", "masks": ms.solve, "refresh": WAITING, **arguments}
    with pytest.raises(InputError, match=message):
        Sparsifier(**arguments)
    assert type(model[2]) is before
    assert list(model.state_dict()) == list(state)
    assert all(torch.equal(model.state_dict()[name], value) for name, value in state.items())


def pruned(model):
    prune.l1_unstructured(model[2], "weight", 0.5)


def parametrized(model):
    torch.nn.utils.parametrizations.weight_norm(model[2])


def on_meta(model):
    model[2].to("meta")


def lazy(model):
    model[2] = torch.nn.LazyLinear(32)


def of_inference_mode(model):
    with torch.inference_mode():
        model[2] = torch.nn.Linear(32, 32)


def scripted(model):
    model[2] = torch.jit.script(torch.nn.Linear(32, 32))


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (scripted, "TorchScript has compiled its module, which a mask does not reach: mask the model before torch.jit"),
        (pruned, "keeps it as weight_orig: remove that first"),
        (parametrized, "it is parametrized already: bake or remove the parametrization first"),
        (on_meta, "it is on the meta device, without values"),
        (of_inference_mode, "it was made under torch.inference_mode"),
        (lazy, "it is not initialized: run a batch through the model first"),
    ],
)
def test_layers_that_cannot_be_masked_are_listed_with_the_reason(change, reason):
    model = perceptron()
    change(model)
    with Sparsifier(model, "2:4", ms.solve, None) as sparsifier:
        assert list(sparsifier.masks) == ["4.weight"]
        assert reason in sparsifier.report().skipped["2.weight"]
    model = perceptron()
    change(model)
    with pytest.raises(InputError, match=f"'2.weight' cannot be masked: .*{reason}"):
        Sparsifier(model, "2:4", ms.solve, None, layers="2")
    Sparsifier(model, "2:4", ms.solve, None, exclude="2")
