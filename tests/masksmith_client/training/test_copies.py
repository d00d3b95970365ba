"""Copies of a model in training: averages get the masks of their weights, snapshots keep their own."""

import copy

import pytest
import torch
from support.training_loop import loss_of, perceptron, train
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper
from torch.optim.swa_utils import AveragedModel, get_ema_avg_fn, get_ema_multi_avg_fn

import masksmith as ms
from masksmith_client import InputError
from masksmith_client.training import DensePhases, Fixed, Refresh, Sparsifier, StraightThrough, TrainableThresholds
from masksmith_client.training.copies import with_removed
from masksmith_client.training.masked_layer import MaskedLayer

EVERY_TWO = Refresh(every=2, wait=True)


def masked(schedule=None, method=None, **options):
    model = perceptron()
    method = method or StraightThrough()
    sparsifier = Sparsifier(model, "2:4", ms.solve, EVERY_TWO, method, schedule=schedule, **options)
    return model, torch.optim.AdamW(model.parameters(), lr=5e-2), sparsifier


def lerp_state(average, model):
    for ours, theirs in zip(average.state_dict().values(), model.state_dict().values(), strict=True):
        ours.lerp_(theirs, 0.5)


def lerp_data(average, model):
    for ours, theirs in zip(average.parameters(), model.parameters(), strict=True):
        ours.data.mul_(0.5).add_(theirs.data, alpha=0.5)


def load_state(average, model):
    state = average.state_dict()
    average.load_state_dict({name: torch.lerp(state[name], value, 0.5) for name, value in model.state_dict().items()})


@pytest.mark.parametrize("update", [lerp_state, lerp_data, load_state])
def test_an_average_kept_by_hand_has_the_masks_of_the_model(update):
    model, optimizer, sparsifier = masked()
    average = copy.deepcopy(model)
    first = sparsifier.masks["2.weight"]
    train(model, optimizer, sparsifier, 10, after=lambda step: update(average, model))
    assert not torch.equal(sparsifier.masks["2.weight"], first)
    weight = average[2].parametrizations.weight.original
    assert torch.equal(average[2].weight, weight * sparsifier.masks["2.weight"])


@pytest.mark.parametrize(
    "options",
    [
        {"multi_avg_fn": get_ema_multi_avg_fn(0.9)},
        {"avg_fn": get_ema_avg_fn(0.9), "use_buffers": True},
        {"use_buffers": True},
        {},
    ],
)
def test_an_averaged_model_of_the_dense_phase_becomes_sparse(options):
    model, optimizer, sparsifier = masked(DensePhases(warm_up=4))
    average = AveragedModel(model, **options)
    train(model, optimizer, sparsifier, 3, after=lambda step: average.update_parameters(model))
    assert (average.module[2].weight != 0).all()
    train(model, optimizer, sparsifier, 10, after=lambda step: average.update_parameters(model))
    assert torch.equal(average.module[2].weight != 0, sparsifier.masks["2.weight"])
    before = average(torch.ones(1, 8))
    sparsifier.bake(average)
    assert torch.equal(average(torch.ones(1, 8)), before)
    assert ms.verify(average.module[2]._parameters["weight"] != 0, "2:4")
    sparsifier.step()


def test_a_snapshot_keeps_its_masks():
    model, optimizer, sparsifier = masked()
    train(model, optimizer, sparsifier, 4)
    snapshot, loss = copy.deepcopy(model), loss_of(model)
    before = sparsifier.masks["2.weight"]
    train(model, optimizer, sparsifier, 8)
    assert not torch.equal(sparsifier.masks["2.weight"], before)
    assert torch.equal(snapshot[2].weight != 0, before)
    assert torch.equal(loss_of(snapshot), loss)
    baked = sparsifier.bake(snapshot)
    assert torch.equal(loss_of(baked), loss)


@pytest.mark.parametrize("shape", [(1024, 784), (64, 1024), (128, 96), (2048, 512)], ids=str)
@pytest.mark.parametrize("axis", [0, 1])
def test_an_average_gets_new_masks_though_a_row_and_many_columns_never_change(shape, axis):
    """As of an input or output that is always 0: a unit that a ReLU switches off, or the border of an image."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(*reversed(shape)))
    sparsifier = Sparsifier(model, "2:4", ms.solve, EVERY_TWO, layers=["0"])
    average, weight = copy.deepcopy(model), model[0].parametrizations.weight.original
    changed = torch.randn(shape)
    kept = [slice(None), slice(None)]
    kept[axis] = slice(0, shape[axis] * 3 // 4)
    changed[tuple(kept)] = weight.detach()[tuple(kept)]
    with torch.no_grad():
        weight.copy_(changed)
        average[0].parametrizations.weight.original.copy_(changed)
    sparsifier.refresh_now()
    assert torch.equal(average[0].weight != 0, sparsifier.masks["0.weight"])


def test_a_snapshot_with_nan_keeps_its_masks():
    model, _, sparsifier = masked()
    weight, before = model[2].parametrizations.weight.original, sparsifier.masks["2.weight"]
    with torch.no_grad():
        weight[3, 3] = torch.nan
        snapshot = copy.deepcopy(model)
        weight.copy_(torch.randn(32, 32))
    sparsifier.refresh_now()
    snapshot(torch.ones(1, 8))
    assert torch.equal(snapshot[2].weight_masking.mask, before)


def test_a_snapshot_of_an_average_keeps_the_averages_masks():
    model, optimizer, sparsifier = masked()
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.5))
    train(model, optimizer, sparsifier, 4, after=lambda step: average.update_parameters(model))
    snapshot, expected = copy.deepcopy(average), sparsifier.masks["2.weight"]
    train(model, optimizer, sparsifier, 8, after=lambda step: average.update_parameters(model))
    assert torch.equal(snapshot.module[2].weight != 0, expected)
    assert torch.equal(average.module[2].weight != 0, sparsifier.masks["2.weight"])


def test_an_average_of_a_baked_model_keeps_the_last_masks():
    model, optimizer, sparsifier = masked()
    average = AveragedModel(model)
    train(model, optimizer, sparsifier, 4, after=lambda step: average.update_parameters(model))
    sparsifier.bake()
    assert torch.equal(average.module[2].weight != 0, model[2].weight != 0)


def test_baking_a_copy_with_masks_in_place():
    model, optimizer, sparsifier = masked(method=Fixed(), in_place=True)
    average = copy.deepcopy(model)
    train(model, optimizer, sparsifier, 4, after=lambda step: lerp_data(average, model))
    average[2].weight.data.add_(1.0)
    sparsifier.bake(average)
    assert torch.equal(average[2].weight != 0, sparsifier.masks["2.weight"])


@pytest.mark.parametrize(
    ("method", "device"),
    [
        (StraightThrough(), "meta"),
        (TrainableThresholds(strength=0.5), "cpu"),
        (TrainableThresholds(strength=0.5), "meta"),
    ],
)
def test_a_copy_without_masks_may_be_on_another_device(method, device):
    model, _, sparsifier = masked(method=method)
    for threshold in (parameter for name, parameter in model.named_parameters() if name.endswith("threshold")):
        threshold.data.fill_(0.1)
    average = perceptron().to(device)
    before = average[2].weight.detach().clone()
    sparsifier.bake(average)
    assert average[2].weight.device.type == device
    if device == "cpu":
        assert torch.equal(average[2].weight, before * sparsifier.masks["2.weight"])


def test_a_copy_that_lacks_a_layer_is_refused():
    _, _, sparsifier = masked()
    with pytest.raises(InputError, match="the copy has no layer '4'"):
        sparsifier.bake(torch.nn.Sequential(torch.nn.Linear(8, 32), torch.nn.Tanh(), torch.nn.Linear(32, 32)))
    with pytest.raises(InputError, match=r"the copy's '2.weight' does not have shape \[32, 32\]"):
        sparsifier.bake(perceptron(width=16))
    with pytest.raises(InputError, match=r"model=int is not a torch\.nn\.Module"):
        sparsifier.bake(3)
    other = perceptron()
    with pytest.raises(InputError, match="Sequential does not hold the masked layers"):
        sparsifier.mask_state_dict(dict(other.state_dict()), other)


@pytest.mark.parametrize("method", [StraightThrough(), TrainableThresholds(strength=0.5)])
def test_the_plain_state_dict_is_that_of_the_baked_model(method):
    model, optimizer, sparsifier = masked(method=method)
    if method.needs_optimizer:
        sparsifier.watch(optimizer)
    train(model, optimizer, sparsifier, 5)
    state, expected = sparsifier.plain_state_dict(), loss_of(model)
    plain = perceptron(seed=1)
    plain.load_state_dict(state)
    assert torch.equal(loss_of(plain), expected)
    sparsifier.bake()
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in state.items())
    assert list(sparsifier.plain_state_dict()) == list(perceptron().state_dict())


class Delegating(torch.nn.Module):
    """Its state dict is that of its inner model."""

    def __init__(self, model):
        super().__init__()
        self.inner = model

    def state_dict(self, *arguments, **keywords):
        return self.inner.state_dict(*arguments, **keywords)


def checkpointed(model):
    for index in (2, 4):
        model[index] = checkpoint_wrapper(model[index])
    return model


def with_hook(model, rename):
    def hook(module, state, prefix, metadata):
        for name in list(state):
            rename(state, name)

    model.register_state_dict_post_hook(hook)
    return model


def renamed(model):
    return with_hook(model, lambda state, name: state.update({f"net/{name}": state.pop(name)}))


def fabric(model):
    from lightning import Fabric

    return Fabric(accelerator="cpu", devices=1).setup(model)


@pytest.mark.parametrize("method", [StraightThrough(), TrainableThresholds(strength=0.5)])
@pytest.mark.parametrize("wrap", [checkpointed, Delegating, fabric, renamed])
def test_weights_are_masked_under_the_names_that_the_models_state_dict_gives_them(wrap, method):
    model = wrap(perceptron())
    names = list(model.state_dict())
    sparsifier = Sparsifier(model, "2:4", ms.solve, EVERY_TWO, method, layers=["*2", "*4"])
    state = dict(model.state_dict())
    removed = sparsifier.removed_by_masks(state, model)
    dense = {name: state[name] for name in removed}
    sparsifier.mask_state_dict(state, model)
    for each in (state, sparsifier.plain_state_dict()):
        assert list(each) == names
        assert sum(ms.verify(each[name] != 0, "2:4").ok for name in names if name.endswith("weight")) == len(dense) == 2
    restored = with_removed(state, removed)
    assert all(torch.equal(restored[name], value) for name, value in dense.items())


class OnGpu(torch.Tensor):
    """Stands in for a tensor on a GPU until `to` moves it."""

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        if func is torch.Tensor.to:
            with torch._C.DisableTorchFunctionSubclass():
                return args[0].as_subclass(torch.Tensor)
        return super().__torch_function__(func, types, args, kwargs or {})


class OnCpu(torch.Tensor):
    """Cannot be indexed by a tensor on a GPU."""

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        assert func is not torch.Tensor.__getitem__ or not isinstance(args[1], OnGpu)
        return super().__torch_function__(func, types, args, kwargs or {})


def test_an_average_may_be_on_the_cpu_while_the_model_is_on_a_gpu(monkeypatch):
    model, _, sparsifier = masked()
    average = {name: value.as_subclass(OnCpu) for name, value in model.state_dict().items()}
    masks, whole_kept = sparsifier.masks, MaskedLayer.whole_kept
    monkeypatch.setattr(MaskedLayer, "whole_kept", lambda layer: whole_kept(layer).as_subclass(OnGpu))
    removed = sparsifier.removed_by_masks(average, model)
    assert removed.keys() == masks.keys()
    assert all(torch.equal(removed[name]["values"], average[name][~mask]) for name, mask in masks.items())


def test_a_state_dict_without_a_masked_weight_is_refused():
    model = with_hook(perceptron(), lambda state, name: state.update({f"net.{name}": state.pop(name).clone()}))
    sparsifier = Sparsifier(model, "2:4", ms.solve, EVERY_TWO)
    state = model.state_dict()
    before = dict(state)
    message = "lacks the weight of the masked layer '2.weight', which may be dense .* it must have '2.weight'"
    for use in (sparsifier.mask_state_dict, sparsifier.removed_by_masks):
        with pytest.raises(InputError, match=message):
            use(state, model)
    assert all(state[name] is value for name, value in before.items())
    with pytest.raises(InputError, match=message):
        sparsifier.plain_state_dict()
    empty = {}  # What ranks other than the first have of a sharded model.
    sparsifier.mask_state_dict(empty, model)
    assert empty == {}


class Shared(torch.nn.Module):
    """Three uses of one weight: a module under two names, and another module."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first = self.second = torch.nn.Linear(16, 16)
        self.tied = torch.nn.Linear(16, 16)
        self.tied.weight = self.first.weight

    def forward(self, inputs):
        return self.tied(self.second(self.first(inputs)))


SHARED_NAMES = ("first.weight", "second.weight", "tied.weight")


@pytest.mark.parametrize("method", [StraightThrough(), TrainableThresholds(strength=0.5)])
def test_a_shared_weight_is_masked_under_all_its_names(method):
    model = Shared()
    plain_names = list(model.state_dict())
    sparsifier = Sparsifier(model, "2:4", ms.solve, EVERY_TWO, method, layers=["first"])
    masked = model.state_dict()
    sparsifier.mask_state_dict(masked, model)
    baked = sparsifier.bake(copy.deepcopy(model)).state_dict()
    for state in (masked, sparsifier.plain_state_dict(), baked):
        assert list(state) == plain_names
        assert all(ms.verify(state[name] != 0, "2:4") for name in SHARED_NAMES)


def test_a_snapshot_of_a_shared_weight_is_baked_with_its_own_mask():
    model = Shared()
    sparsifier = Sparsifier(model, "2:4", ms.solve, EVERY_TWO, layers=["first"])
    snapshot, mask = copy.deepcopy(model), sparsifier.masks["first.weight"]
    with torch.no_grad():
        model.first.parametrizations.weight.original.copy_(torch.randn(16, 16))
    sparsifier.refresh_now()
    assert not torch.equal(sparsifier.masks["first.weight"], mask)
    sparsifier.bake(snapshot)
    assert torch.equal(snapshot.tied.weight != 0, mask)


class TiedBackwards(torch.nn.Module):
    """A module whose second layer is registered before the first: copies are made in the order of registration."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        first = torch.nn.Linear(16, 16)
        self.second = torch.nn.Linear(16, 16)
        self.second.weight = first.weight
        self.first = first

    def forward(self, inputs):
        return self.second(self.first(inputs))


@pytest.mark.parametrize("part", ["", "first", "second"])
@pytest.mark.parametrize("model_class", [Shared, TiedBackwards])
def test_a_copy_of_any_part_with_a_shared_weight_is_a_snapshot_until_its_weight_changes(model_class, part):
    model = model_class()
    sparsifier = Sparsifier(model, "2:4", ms.solve, EVERY_TWO, layers=["first"])
    snapshot, average = copy.deepcopy(model.get_submodule(part)), copy.deepcopy(model.get_submodule(part))
    again = copy.deepcopy(snapshot)
    layers = [each.first if part == "" else each for each in (snapshot, average, again)]
    mask = layers[1].weight != 0  # Reading it, as an evaluation does, does not make the average a snapshot.
    with torch.no_grad():
        model.first.parametrizations.weight.original.copy_(torch.randn(16, 16))
        layers[1].parametrizations.weight.original.copy_(torch.randn(16, 16))
    sparsifier.refresh_now()
    (later,) = sparsifier.masks.values()
    assert not torch.equal(later, mask)
    for layer, expected in zip(layers, (mask, later, mask), strict=True):
        assert torch.equal(layer.weight != 0, expected)


def test_a_copy_with_the_masks_of_another_sparsifier_is_not_baked_as_ones_own():
    model, optimizer, first = masked()
    average, other = (AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.5)) for _ in range(2))
    first.bake()
    first.bake(other.module)
    second = Sparsifier(model, "2:8", ms.solve, EVERY_TWO)
    train(
        model,
        optimizer,
        second,
        4,
        after=lambda step: (average.update_parameters(model), other.update_parameters(model)),
    )
    with pytest.raises(InputError, match=r"'2.weight' still has the mask of another Sparsifier.*copy the model again"):
        second.bake(average.module)
    assert torch.equal(second.bake(other.module)[2].weight != 0, second.masks["2.weight"])


def test_a_model_that_holds_its_sparsifier_is_copied():
    model, optimizer, sparsifier = masked()
    model.sparsifier = sparsifier
    average = copy.deepcopy(model)
    assert average.sparsifier is sparsifier
    train(model, optimizer, sparsifier, 4, after=lambda step: lerp_data(average, model))
    assert torch.equal(average[2].weight != 0, sparsifier.masks["2.weight"])
