"""Masks follow the weights: replaced parameters, copies, averages, several and fused optimizers, compiled models."""

import copy

import pytest
import torch
from support.training_loop import perceptron, train
from torch.nn.utils import parametrize, prune

import masksmith as ms
from masksmith_client import InputError
from masksmith_client.training import DensePhases, Fixed, MaskedDecay, Refresh, Sparsifier
from masksmith_client.training.masked_parameter import detach

PATTERN = "2:4"
EVERY = Refresh(every=1, wait=True)


def dense(layer):
    return layer.parametrizations.weight.original


def random_state(model):
    return {name: torch.randn_like(value) for name, value in model.state_dict().items()}


def best_mask(weight):
    return torch.as_tensor(ms.solve(weight.detach().abs(), PATTERN).mask)


def test_masks_follow_weights_that_were_replaced(model):
    sparsifier = Sparsifier(model, PATTERN, ms.solve, EVERY)
    model.load_state_dict(random_state(model), assign=True)
    sparsifier.refresh_now()
    assert torch.equal(sparsifier.masks["2.weight"], best_mask(dense(model[2])))


def test_masks_in_place_follow_weights_that_were_replaced(model):
    sparsifier = Sparsifier(model, PATTERN, ms.solve, None, Fixed(), in_place=True)
    model.load_state_dict(random_state(model), assign=True)
    assert sparsifier.report().layers[0].density == 1.0
    sparsifier.step()
    assert sparsifier.report().layers[0].density == 0.5
    sparsifier.bake()
    assert ms.verify(model[2].weight != 0, PATTERN)
    with torch.no_grad():
        model[2].weight.fill_(1.0)
    assert sparsifier.report().layers[0].density == 1.0


def test_a_mask_that_something_else_removed_is_named(model):
    sparsifier = Sparsifier(model, PATTERN, ms.solve, None)
    detach(model[2], "weight")
    with pytest.raises(InputError, match=r"mask of '2\.weight' was removed from layer '2'"):
        sparsifier.step()


def test_an_average_begun_in_a_dense_phase_gets_masks(model, optimizer):
    average = torch.optim.swa_utils.AveragedModel(model)
    schedule = DensePhases(warm_up=2)
    sparsifier = Sparsifier(model, PATTERN, ms.solve, EVERY, schedule=schedule)
    average = torch.optim.swa_utils.AveragedModel(model)
    train(model, optimizer, sparsifier, 5, after=lambda step: average.update_parameters(model))
    assert ms.verify(average.module[2].weight != 0, PATTERN)
    assert sparsifier.bake(average) is average
    assert isinstance(average.module[2].weight, torch.nn.Parameter)
    assert ms.verify(average.module[2].weight != 0, PATTERN)


def test_a_copy_keeps_its_masks_until_its_weights_change(model, optimizer):
    sparsifier = Sparsifier(model, PATTERN, ms.solve, EVERY)
    copied = copy.deepcopy(model)
    before = copied[2].weight.detach().clone()
    for value in model.parameters():
        value.data = torch.randn_like(value)
    sparsifier.refresh_now()
    assert torch.equal(copied[2].weight, before)
    copied.load_state_dict(model.state_dict())
    assert torch.equal(copied[2].weight, model[2].weight)


@pytest.mark.parametrize("fused", [False, True])
def test_masked_decay_under_a_gradient_scaler(model, fused):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, fused=fused)
    sparsifier = Sparsifier(model, PATTERN, ms.solve, None, MaskedDecay(decay=1.0), optimizer=optimizer)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    before = dense(model[2]).detach().clone()
    scaler.scale((model(torch.randn(4, 8)) * 0).sum()).backward()
    scaler.step(optimizer)
    expected = torch.where(sparsifier.masks["2.weight"], before, 0.9 * before)
    torch.testing.assert_close(dense(model[2]).detach(), expected)


def test_masked_decay_in_steps_with_a_closure(model):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    sparsifier = Sparsifier(model, PATTERN, ms.solve, None, MaskedDecay(decay=1.0), optimizer=optimizer)
    before = dense(model[2]).detach().clone()

    def closure():
        optimizer.zero_grad()
        loss = (model(torch.randn(4, 8)) * 0).sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    expected = torch.where(sparsifier.masks["2.weight"], before, 0.9 * before)
    torch.testing.assert_close(dense(model[2]).detach(), expected)


def test_masked_decay_with_several_optimizers(model):
    sparsifier = Sparsifier(model, PATTERN, ms.solve, None, "masked-decay")
    one, two = (torch.optim.SGD([dense(model[index])], lr=0.1) for index in (2, 4))
    sparsifier.watch(one)
    with pytest.raises(InputError, match=r"no watched optimizer holds '4.weight'"):
        sparsifier.step()
    sparsifier.watch([one, two])
    sparsifier.step()
    foreign = torch.optim.SGD(torch.nn.Linear(2, 2).parameters(), lr=0.1)
    with pytest.raises(InputError, match="contains no masked weight"):
        sparsifier.watch(foreign)


def test_plain_names_and_order_of_parameters():
    plain = perceptron()
    before = [name for name, _ in plain.named_parameters()]
    sparsifier = Sparsifier(torch.compile(plain, backend="eager"), PATTERN, ms.solve, None)
    assert list(sparsifier.state_dict()["masks"]) == ["2.weight", "4.weight"]
    state = sparsifier.plain_state_dict()
    sparsifier.bake()
    assert [name for name, _ in plain.named_parameters()] == before
    other = perceptron(seed=1)
    other.load_state_dict(state)
    assert torch.equal(other[2].weight, plain[2].weight)


def test_other_parametrizations_do_not_matter_where_they_are_not_masked(model):
    torch.nn.utils.parametrizations.weight_norm(model[4])
    sparsifier = Sparsifier(model, PATTERN, ms.solve, None)
    assert list(sparsifier.masks) == ["2.weight"]
    assert "parametrized already" in sparsifier.report().skipped["4.weight"]


def test_pruning_and_parametrizations_of_torch_are_refused_by_name(model):
    parametrize.register_parametrization(model[2], "bias", torch.nn.Identity())
    sparsifier = Sparsifier(model, PATTERN, ms.solve, None)
    with pytest.raises(InputError, match=r"torch\.nn\.utils\.prune cannot prune a masked weight: bake"):
        prune.l1_unstructured(model[4], "weight", 0.5)
    with pytest.raises(InputError, match="a parametrization that is older than the mask"):
        parametrize.remove_parametrizations(model[2], "bias")
    sparsifier.step()
    sparsifier.bake()
    parametrize.remove_parametrizations(model[2], "bias")
    assert ms.verify(model[2].weight != 0, PATTERN)


@pytest.mark.parametrize("options", [{"method": "adam"}, {"pattern": 3}, {"optimizer": "sgd"}, {"schedule": 1}])
def test_wrong_arguments_leave_the_model_as_it_was(model, options):
    before = list(model.state_dict())
    with pytest.raises(InputError, match=next(iter(options))):
        Sparsifier(model, **({"pattern": PATTERN, "masks": ms.solve, "refresh": None} | options))
    assert list(model.state_dict()) == before


def test_the_projections_of_attention_are_masked():
    model = torch.nn.TransformerEncoder(torch.nn.TransformerEncoderLayer(32, 4, 64, batch_first=True), 2)
    sparsifier = Sparsifier(model, PATTERN, ms.solve, None)
    name = "layers.0.self_attn.in_proj_weight"
    assert ms.verify(sparsifier.masks[name], PATTERN)
    sparsifier.bake()
    assert ms.verify(model.get_parameter(name) != 0, PATTERN)
