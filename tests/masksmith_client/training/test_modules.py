"""Masked modules are used as plain ones are: pickled, initialized again, differentiated; faults are named."""

import copy
import io

import pytest
import torch
from support.training_loop import WAITING, loss_of, perceptron, train
from torch.ao.quantization import (
    QConfigMapping,
    convert,
    default_dynamic_qconfig,
    get_default_qat_qconfig,
    prepare_qat,
    quantize_dynamic,
)
from torch.ao.quantization.quantize_fx import convert_fx, prepare_fx
from torch.fx.experimental.proxy_tensor import make_fx

import masksmith as ms
from masksmith_client import InputError
from masksmith_client.training import CubicDensity, DensePhases, FallingN, Fixed, MaskedDecay, Refresh, Sparsifier

DEPRECATED = pytest.mark.filterwarnings(
    "ignore:torch.ao.quantization is deprecated:DeprecationWarning",
    "ignore:Please use quant_min:UserWarning",
    "ignore:torch.quantize_per_tensor:UserWarning",
)
PATTERN = "2:4"


def dense(layer):
    return layer.parametrizations.weight.original


@pytest.mark.parametrize("method", ["sr-ste", "trainable-thresholds"])
def test_a_pickled_model_is_a_snapshot_with_its_masks(model, method):
    sparsifier = Sparsifier(model, PATTERN, ms.solve, None, method)
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    restored = torch.load(file, weights_only=False)
    before = model[2].weight.detach().clone()
    with torch.no_grad():
        dense(model[2]).normal_()
    sparsifier.refresh_now()
    assert torch.equal(restored[2].weight, before)
    assert ms.verify(restored[2].weight != 0, PATTERN)
    assert list(restored.state_dict()) == list(model.state_dict())
    sparsifier.bake(restored)
    assert type(restored[2]) is torch.nn.Linear


def test_a_sparsifier_cannot_be_pickled_and_the_error_says_what_can(model):
    model.sparsifier = Sparsifier(model, PATTERN, ms.solve, WAITING)
    with pytest.raises(InputError, match=r"a Sparsifier cannot be pickled: save its state_dict\(\).*attributes"):
        torch.save(model, io.BytesIO())
    del model.sparsifier
    torch.save(model, io.BytesIO())


def test_initializing_again_writes_to_the_dense_weight(model):
    sparsifier = Sparsifier(model, PATTERN, ms.solve, WAITING)
    torch.manual_seed(5)
    model[2].reset_parameters()
    torch.manual_seed(5)
    assert torch.equal(dense(model[2]), torch.nn.Linear(32, 32).weight)
    sparsifier.refresh_now()
    assert torch.equal(sparsifier.masks["2.weight"], torch.as_tensor(ms.solve(dense(model[2]).abs(), PATTERN).mask))
    sparsifier.bake()
    model[2].reset_parameters()
    assert bool((model[2].weight != 0).all())


@pytest.mark.parametrize("method", ["fixed", "sr-ste", "trainable-thresholds"])
def test_gradients_of_torch_func_are_those_of_backward(model, method):
    Sparsifier(model, PATTERN, ms.solve, None, method)
    values = dict(model.named_parameters())
    inputs = torch.randn(4, 8)
    gradients = torch.func.grad(
        lambda parameters: torch.func.functional_call(model, parameters, (inputs,)).square().mean()
    )({name: value.detach() for name, value in values.items()})
    model(inputs).square().mean().backward()
    for name, value in values.items():
        torch.testing.assert_close(gradients[name], value.grad, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("method", ["fixed", "trainable-thresholds"])
def test_gradients_of_single_examples_are_those_of_backward(model, method):
    Sparsifier(model, PATTERN, ms.solve, None, method)
    values, inputs = dict(model.named_parameters()), torch.randn(3, 8)

    def loss(parameters, example):
        return torch.func.functional_call(model, parameters, (example[None],)).square().sum()

    detached = {name: value.detach() for name, value in values.items()}
    gradients = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(detached, inputs)
    for index in range(len(inputs)):
        model.zero_grad()
        loss(values, inputs[index]).backward()
        for name, value in values.items():
            torch.testing.assert_close(gradients[name][index], value.grad)


def test_the_dense_parameter_has_its_name(model):
    weight = model[2].weight
    Sparsifier(model, PATTERN, ms.solve, None)
    assert model.get_parameter("2.weight") is weight
    assert model[2].get_parameter("weight") is weight
    assert ms.verify(model[2].weight != 0, PATTERN)


def test_a_masked_model_of_transformers_is_tied_again():
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = {"vocab_size": 32, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    model = LlamaForCausalLM(LlamaConfig(**sizes, num_attention_heads=1, tie_word_embeddings=True))
    sparsifier = Sparsifier(model, PATTERN, ms.solve, WAITING, layers="lm_head")
    weight = model.lm_head._parameters["weight"]
    model.tie_weights()
    sparsifier.step()
    assert model.lm_head._parameters["weight"] is weight is model.model.embed_tokens._parameters["weight"]


def test_a_fault_of_a_method_does_not_give_the_dense_weight(model):
    class Broken(Fixed):
        def masked(self, weight, masking):
            return masking.no_such_mask

    Sparsifier(model, PATTERN, ms.solve, None, Broken())
    with pytest.raises(RuntimeError, match=r"masked weight of Linear cannot be computed.*no_such_mask"):
        model(torch.randn(2, 8))


@pytest.mark.parametrize("first_in_place", [True, False])
def test_a_second_sparsifier_of_the_same_weight_is_refused(model, first_in_place):
    first = Sparsifier(model, PATTERN, ms.solve, None, Fixed(), layers="2", in_place=first_in_place)
    with pytest.raises(InputError, match=r"'2\.weight' cannot be masked: it has the mask of another Sparsifier"):
        Sparsifier(model, "1:4", ms.solve, None, Fixed(), layers="2", in_place=True)
    assert "another Sparsifier" in Sparsifier(model, "1:4", ms.solve, None).report().skipped["2.weight"]
    first.bake()
    Sparsifier(model, "1:4", ms.solve, None, Fixed(), layers="2", in_place=True)


def test_a_sparsifier_of_inference_mode_trains(model):
    with torch.inference_mode():
        sparsifier = Sparsifier(model, "2:4", ms.solve, None)
    model(torch.randn(4, 8)).sum().backward()
    sparsifier.refresh_now()
    model(torch.randn(4, 8)).sum().backward()


@DEPRECATED
def test_quantisation_that_would_leave_masked_layers_out_is_refused(model):
    model.qconfig = get_default_qat_qconfig("fbgemm")
    sparsifier = Sparsifier(model, "2:4", ms.solve, None)
    with pytest.raises(InputError, match="masked Linear as it is: create the Sparsifier after prepare_qat, or bake"):
        prepare_qat(model)
    prepare_qat(sparsifier.bake())


def dynamic_by_class(model):
    return quantize_dynamic(model, {torch.nn.Linear})


def graph_by_class(model):
    mapping = QConfigMapping().set_object_type(torch.nn.Linear, default_dynamic_qconfig)
    return convert_fx(prepare_fx(model, mapping, torch.randn(2, 8)))


@DEPRECATED
@pytest.mark.parametrize("quantise", [dynamic_by_class, quantize_dynamic, graph_by_class])
def test_quantisation_of_a_class_refuses_its_masked_layers(model, quantise):
    sparsifier = Sparsifier(model.eval(), "2:4", ms.solve, None)
    with pytest.raises(InputError, match="would leave a masked Linear as it is"):
        quantise(copy.deepcopy(model))
    quantised = quantise(sparsifier.bake())
    assert ms.verify(quantised.get_submodule("2").weight().dequantize() != 0, ms.NM(2, 4, fill="at_most"))


@DEPRECATED
def test_masked_layers_that_are_not_to_be_quantised_stay_as_they_are(model):
    Sparsifier(model.eval(), "2:4", ms.solve, None)
    for selected in ({torch.nn.LSTM}, {torch.nn.Linear: default_dynamic_qconfig, "2": None, "4": None}):
        assert isinstance(quantize_dynamic(model, selected)[2], torch.nn.Linear)


@DEPRECATED
def test_training_with_fake_quantisation_keeps_masks_when_it_is_converted(model):
    model.qconfig = get_default_qat_qconfig("fbgemm")
    prepared = prepare_qat(model)
    sparsifier = Sparsifier(prepared, "2:4", ms.solve, None)
    prepared(torch.randn(4, 8)).sum().backward()
    with pytest.raises(InputError, match="did not convert a masked Linear: bake the masks first"):
        convert(prepared)
    converted = convert(sparsifier.bake())
    assert ms.verify(converted[2].weight().dequantize() != 0, ms.NM(2, 4, fill="at_most"))


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_torchscript_and_masks_refuse_each_other(model):
    scripted = torch.jit.script(perceptron())
    with pytest.raises(InputError, match=r"TorchScript has compiled its module, .*: mask the model before torch.jit"):
        Sparsifier(scripted, PATTERN, ms.solve, None)
    sparsifier = Sparsifier(model, PATTERN, ms.solve, None)
    with pytest.raises(InputError, match=r"torch.jit.script cannot compile the masked weight: bake the masks first"):
        torch.jit.script(model)
    with pytest.raises(InputError, match=r"the copy's '2.weight' was compiled by TorchScript: bake the masks before"):
        sparsifier.bake(scripted)
    inputs = torch.randn(4, 8)
    assert torch.equal(torch.jit.script(sparsifier.bake())(inputs), model(inputs))


class Product(torch.nn.Module):
    """A module whose operations torch.fx traces one by one; it traces layers of torch as a whole."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.randn(16, 16))

    def forward(self, inputs):
        return inputs @ self.weight.T


def test_a_graph_of_torch_fx_trains_masked_layers_or_is_refused():
    linear = torch.nn.Sequential(torch.nn.Linear(16, 16), torch.nn.Linear(16, 16))
    model = torch.nn.Sequential(linear, Product())
    sparsifier = Sparsifier(
        model, PATTERN, ms.solve, WAITING, layers=["0.*", "1.weight"], layouts={"1.weight": "out in"}
    )
    with pytest.raises(InputError, match=r"torch\.fx would make the masked weight a constant.*bake the masks first"):
        torch.fx.symbolic_trace(model)
    inputs = torch.randn(4, 16)
    assert torch.equal(torch.fx.symbolic_trace(linear)(inputs), linear(inputs))
    assert torch.equal(make_fx(model)(inputs)(inputs), model(inputs))
    sparsifier.bake()
    torch.testing.assert_close(torch.fx.symbolic_trace(model)(inputs), model(inputs))


def test_a_model_is_exported_and_a_masked_copy_is_refused(model):
    sparsifier = Sparsifier(model, PATTERN, ms.solve, WAITING)
    inputs = torch.randn(4, 8)
    torch.testing.assert_close(torch.export.export(model, (inputs,)).module()(inputs), model(inputs))
    average = copy.deepcopy(model)
    with pytest.raises(InputError, match=r"torch\.export cannot trace a masked copy.*bake the copy first"):
        torch.export.export(average, (inputs,))
    baked = sparsifier.bake(average)
    torch.testing.assert_close(torch.export.export(baked, (inputs,)).module()(inputs), model(inputs))


def test_a_copy_that_cannot_be_baked_is_left_as_it_was(model):
    sparsifier = Sparsifier(model, PATTERN, ms.solve, None)
    other = perceptron(seed=1)
    other[4] = torch.nn.Linear(8, 8)
    before = other[2].weight.detach().clone()
    with pytest.raises(InputError, match=r"the copy's '4\.weight' does not have shape \[32, 32\]"):
        sparsifier.bake(other)
    assert torch.equal(other[2].weight, before)


def test_an_optimizer_that_takes_over_unseen_is_named(model):
    first = torch.optim.SGD(model.parameters(), lr=0.1)
    sparsifier = Sparsifier(model, PATTERN, ms.solve, None, MaskedDecay(), optimizer=first)
    train(model, first, sparsifier, 2)
    second = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(InputError, match=r"'2\.weight' was changed by something other than the watched optimizer"):
        train(model, second, sparsifier, 2)
    sparsifier.watch(second)
    train(model, second, sparsifier, 2)


def test_steps_that_a_gradient_scaler_skips_are_no_fault(model):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    sparsifier = Sparsifier(model, PATTERN, ms.solve, None, MaskedDecay(), optimizer=optimizer)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**126)
    for step in range(5):
        optimizer.zero_grad()
        scaler.scale(loss_of(model, step) * 1e10).backward()
        scaler.step(optimizer)
        scaler.update()
        sparsifier.step()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DensePhases(warm_up="many"), "warm_up='many'"),
        (lambda: DensePhases(between="falling-n"), "between='falling-n' is not a schedule"),
        (lambda: FallingN(begin=0, end="last"), "end='last'"),
        (lambda: CubicDensity(begin=0, end=5, start="all"), "start='all' must lie in"),
        (lambda: Refresh(until="never"), "until='never'"),
        (lambda: Refresh(timeout_s="1"), "timeout_s='1'"),
    ],
    ids=["warm_up", "between", "end", "start", "until", "timeout_s"],
)
def test_wrong_numbers_are_named(make, message):
    with pytest.raises(InputError, match=message):
        make()


@pytest.mark.parametrize(
    "scores",
    [3, lambda name, weight: None, lambda name, weight: weight.abs() + 1j],
    ids=["number", "none", "complex"],
)
def test_scores_that_are_none_are_refused(model, scores):
    before = list(model.state_dict())
    with pytest.raises(InputError, match="scores"):
        Sparsifier(model, PATTERN, ms.solve, None, scores=scores)
    assert list(model.state_dict()) == before
    assert type(model[2]) is torch.nn.Linear


@pytest.mark.parametrize("in_place", [True, False])
def test_pruned_entries_that_are_not_finite_become_zero(model, in_place):
    sparsifier = Sparsifier(model, PATTERN, ms.solve, None, Fixed(), layers=["2", "4"], in_place=in_place)
    copied = copy.deepcopy(model)
    for each in (model, copied):
        for layer, value in ((each[2], torch.inf), (each[4], torch.nan)):
            with torch.no_grad():
                layer._parameters["weight"][~sparsifier.masks[f"{2 if layer is each[2] else 4}.weight"]] = value
    state = model.state_dict()
    sparsifier.mask_state_dict(state, model)
    for weights in (sparsifier.plain_state_dict(), state, sparsifier.bake(copied).state_dict()):
        assert all(torch.equal(weights[name] != 0, mask) for name, mask in sparsifier.masks.items())
    sparsifier.bake()
    assert all(torch.equal(model.state_dict()[name] != 0, mask) for name, mask in sparsifier.masks.items())


def test_a_frozen_weight_that_is_trained_later_has_no_gradient_at_pruned_entries(model):
    model[2].weight.requires_grad_(False)
    sparsifier = Sparsifier(model, PATTERN, ms.solve, None, Fixed(), layers="2", in_place=True)
    assert not model[2].weight.requires_grad
    model[2].weight.requires_grad_(True)
    loss_of(model).backward()
    assert model[2].weight.grad.any()
    assert not model[2].weight.grad[~sparsifier.masks["2.weight"]].any()
