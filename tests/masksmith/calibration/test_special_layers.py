"""Layers whose inputs or weights are not those that hooks see: run again, subclasses, computed weights."""

import functools

import numpy as np
import pytest
import torch
from torch.utils.checkpoint import checkpoint

import masksmith as ms
from masksmith.layouts import Candidate, select, with_layouts

KINDS = ("norms", "gram", "activations", "gradients")


def loss(model, batch):
    return model(batch).square().mean()


class Checkpointed(torch.nn.Sequential):
    """Layers under activation checkpointing."""

    use_reentrant = False

    def forward(self, inputs):
        return checkpoint(super().forward, inputs.requires_grad_(), use_reentrant=self.use_reentrant)


def test_layers_that_a_backward_pass_runs_again_count_once(model, batches):
    expected = ms.calibrate(model, batches, gather=KINDS, loss=loss)
    checkpointed = Checkpointed(*model)
    gathered = ms.calibrate(checkpointed, batches, gather=KINDS, loss=loss)
    for name in expected:
        assert gathered[name].samples == expected[name].samples
        for kind in ("norms", "gram", "activations", "gradient"):
            np.testing.assert_array_equal(getattr(gathered[name], kind), getattr(expected[name], kind))
    checkpointed.use_reentrant = True
    with pytest.raises(ms.ScoresError, match="gradients do not reach layers"):
        ms.calibrate(checkpointed, batches, gather=("gradients",), loss=loss)


class Computed(torch.nn.Linear):
    """A layer whose weight is computed at each use, as that of a masked one."""

    @property
    def weight(self):
        return 2 * self._parameters["weight"]


def test_gradients_of_weights_that_are_computed_at_each_use_are_refused(model, batches):
    model[3].__class__ = Computed
    assert ms.calibrate(model, batches, layers="*")["3.weight"].samples == 60
    with pytest.raises(ms.ScoresError, match=r"'3.weight': gradients do not reach its weight.*calibrate before"):
        ms.calibrate(model, batches, gather=("gradients",), loss=loss, layers="*")


class TenTimes(torch.nn.Linear):
    """Multiplies with ten times its input."""

    def forward(self, inputs):
        return super().forward(10 * inputs)


class ByOperator(torch.nn.Linear):
    """Multiplies without `functional.linear`."""

    def forward(self, inputs):
        return inputs @ self.weight.T


@pytest.mark.parametrize(("kind", "factor"), [(TenTimes, 10), (ByOperator, 1)])
@pytest.mark.parametrize("gather", [("norms",), ("norms", "gradients")])
def test_inputs_of_a_subclass_are_what_its_weight_is_multiplied_with(batches, kind, factor, gather):
    model = torch.nn.Sequential(kind(8, 8), torch.nn.Linear(8, 8))
    gathered = ms.calibrate(model, batches, gather=gather, loss=loss, layers="0")["0.weight"]
    rows = torch.cat(batches).reshape(-1, 8)
    assert gathered.samples == len(rows)
    np.testing.assert_allclose(gathered.norms, factor * np.linalg.norm(rows.double().numpy(), axis=0), rtol=1e-5)


class Ternary(torch.nn.Linear):
    """Multiplies a changed input with a tensor that is computed from its weight."""

    def forward(self, inputs):
        ternary = self.weight.sign() * self.weight.abs().mean()
        return torch.nn.functional.linear(10 * inputs, self.weight + (ternary - self.weight).detach())


class ByEinsum(torch.nn.Linear):
    """Sums ten times its input over a transposed copy of its weight."""

    def forward(self, inputs):
        return torch.einsum("...i,io->...o", 10 * inputs, self.weight.T.contiguous().double().float())


class ByGroups(torch.nn.Linear):
    """Scales its weight in groups of four."""

    def forward(self, inputs):
        groups = self.weight.reshape(-1, 4)
        scaled = groups / groups.abs().amax(-1, keepdim=True)
        return torch.addmm(self.bias, 10 * inputs.reshape(-1, 8), scaled.reshape(8, 8).t())


@pytest.mark.parametrize("kind", [Ternary, ByEinsum, ByGroups])
def test_inputs_of_a_product_with_a_computed_weight_are_recorded(batches, kind):
    gathered = ms.calibrate(torch.nn.Sequential(kind(8, 8)), batches)["0.weight"]
    rows = 10 * torch.cat([batch.reshape(-1, 8) for batch in batches]).double().numpy()
    assert gathered.samples == len(rows)
    np.testing.assert_allclose(gathered.norms, np.linalg.norm(rows, axis=0), rtol=1e-5)


class Reordered(torch.nn.Linear):
    """Multiplies with the inputs in another order."""

    def forward(self, inputs):
        return torch.nn.functional.linear(inputs.flip(-1), self.weight.flip(-1))


class InParts(torch.nn.Linear):
    """Multiplies each half of its weight alone."""

    def forward(self, inputs):
        return inputs[..., :4] @ self.weight[:, :4].T + inputs[..., 4:] @ self.weight[:, 4:].T


class AlongOutputs(torch.nn.Linear):
    """Sums over the outputs of its weight."""

    def forward(self, inputs):
        return inputs @ self.weight


@pytest.mark.parametrize(
    ("kind", "reason"),
    [(Reordered, "no product with its weight was seen"), (InParts, "multiplied alone"), (AlongOutputs, "do not sum")],
)
def test_a_layer_whose_products_cannot_be_followed_is_skipped_with_the_reason(batches, kind, reason):
    model = torch.nn.Sequential(torch.nn.Linear(8, 8), kind(8, 8))
    gathered = ms.calibrate(model, batches, gather=("norms", "gradients"), loss=loss)
    assert list(gathered) == ["0.weight"]
    assert reason in gathered.skipped["1.weight"]
    assert "1.weight" in ms.calibrate(model, batches, gather=("gradients",), loss=loss)


class Causal(torch.nn.Conv1d):
    """Pads its input at the beginning."""

    def forward(self, inputs):
        return super().forward(torch.nn.functional.pad(inputs, (self.kernel_size[0] - 1, 0)))


NamedAsInTransformers = type("Conv1D", (Causal,), {})
"""A convolution whose class has the name of the linear layer of transformers."""


class Same(torch.nn.Conv2d):
    """Pads at the end, and has its convolution elsewhere than in `forward`."""

    def _conv_forward(self, inputs, weight, bias):
        padded = torch.nn.functional.pad(inputs, (0, 2, 0, 2))
        return torch.nn.functional.conv2d(padded, weight, None, self.stride, (0, 0), self.dilation, self.groups)


class Pointwise(torch.nn.Conv2d):
    """Multiplies its weight as a matrix."""

    def forward(self, inputs):
        return torch.nn.functional.linear(inputs.permute(0, 2, 3, 1), self.weight.flatten(1)).permute(0, 3, 1, 2)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(("kind", "kernel"), [(Causal, 3), (NamedAsInTransformers, 3), (Same, 3), (Pointwise, 1)])
def test_patches_of_a_subclass_multiply_to_its_outputs(kind, kernel, memory_format):
    torch.manual_seed(0)
    layer = kind(3, 5, kernel, bias=False)
    inputs = torch.randn(2, 3, *([7] if issubclass(kind, Causal) else [7, 6]))
    if not issubclass(kind, Causal):
        layer, inputs = layer.to(memory_format=memory_format), inputs.to(memory_format=memory_format)
    gathered = ms.calibrate(torch.nn.Sequential(layer), [inputs], gather=("norms", "activations"))["0.weight"]
    expected = layer(inputs).detach().transpose(0, 1).reshape(5, -1).numpy()
    products = layer.weight.detach().reshape(5, -1).numpy() @ gathered.activations.T
    np.testing.assert_allclose(np.sort(products, axis=1), np.sort(expected, axis=1), rtol=1e-3, atol=1e-5)


class Beside(torch.nn.Module):
    """Uses the weight of a layer without calling it; may call it as well."""

    def __init__(self, calls):
        super().__init__()
        self.layer, self.calls = torch.nn.Linear(8, 8), calls

    def forward(self, inputs):
        output = torch.nn.functional.linear(10 * inputs, self.layer.weight.type_as(inputs))
        return output + self.layer(inputs) if self.calls else output


@pytest.mark.parametrize("calls", [True, False])
def test_a_weight_that_is_used_without_its_layer_counts_all_its_inputs(batches, calls):
    model = Beside(calls)
    gathered = ms.calibrate(model, batches)["layer.weight"]
    rows = torch.cat([batch.reshape(-1, 8) for batch in batches]).double().numpy()
    assert gathered.samples == (2 if calls else 1) * len(rows)
    factor = np.sqrt(101 if calls else 100)
    np.testing.assert_allclose(gathered.norms, factor * np.linalg.norm(rows, axis=0), rtol=1e-5)
    with_gradients = ms.calibrate(model, batches, gather=("norms", "gradients"), loss=loss)
    if calls:
        assert with_gradients["layer.weight"].gradient.any()
    else:
        assert "its gradients are not gathered" in with_gradients.skipped["layer.weight"]


class BesideLater(Beside):
    """Calls its layer; after the first batch, uses the layer's weight without calling it, too."""

    def forward(self, inputs):
        output = super().forward(inputs) if self.calls else self.layer(inputs)
        self.calls = True
        return output


def test_a_weight_that_is_used_without_its_layer_in_a_later_batch_counts_all_its_inputs(batches):
    gathered = ms.calibrate(BesideLater(calls=False), batches)["layer.weight"]
    first, *others = [batch.reshape(-1, 8) for batch in batches]
    rows = torch.cat([first, *others, *(10 * batch for batch in others)]).double().numpy()
    assert gathered.samples == len(rows)
    np.testing.assert_allclose(gathered.norms, np.linalg.norm(rows, axis=0), rtol=1e-5)


class Bilinear(torch.nn.Module):
    """Multiplies without a weight."""

    def forward(self, inputs):
        rows = inputs.reshape(-1, 8)
        return rows @ rows.T


def test_products_without_a_weight_are_not_counted(batches):
    gathered = ms.calibrate(torch.nn.Sequential(torch.nn.Linear(8, 8), Bilinear()), batches)
    assert {name: each.samples for name, each in gathered.items()} == {"0.weight": 60}


class Functional(torch.nn.Module):
    """A convolution whose weight is used without calling the layer."""

    def __init__(self, arguments):
        super().__init__()
        self.layer, self.arguments = torch.nn.Conv2d(2, 3, 3), arguments

    def forward(self, inputs):
        return torch.nn.functional.conv2d(inputs, self.layer.weight, **self.arguments)


@pytest.mark.parametrize("name", ["padding", "stride", "dilation"])
def test_one_length_may_stand_for_all_dimensions_of_a_convolution(name):
    images = torch.randn(1, 2, 7, 6)
    one, all_ = {name: (2,)}, {name: (2, 2)}
    expected = ms.calibrate(torch.nn.Conv2d(2, 3, 3, **all_), [images], gather=("norms", "gram"))["weight"]
    called = ms.calibrate(torch.nn.Conv2d(2, 3, 3, **one), [images], gather=("norms", "gram"))["weight"]
    functional = ms.calibrate(Functional(one), [images], gather=("norms", "gram"))["layer.weight"]
    for gathered in (called, functional):
        assert gathered.samples == expected.samples
        np.testing.assert_allclose(gathered.norms, expected.norms, rtol=1e-6)
        np.testing.assert_allclose(gathered.gram, expected.gram, rtol=1e-6, atol=1e-6)


class Tied(torch.nn.Module):
    """A weight that is used as a function before its layer is called."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(8, 8, bias=False)

    def forward(self, inputs):
        first = torch.nn.functional.linear(inputs, self.layer.weight)
        return first + self.layer(torch.tanh(first))


def test_gradients_of_frozen_weights_are_those_of_all_their_uses():
    model, batches = Tied(), [torch.randn(4, 8)]
    expected = ms.calibrate(model, batches, gather=("gradients",), loss=loss)["layer.weight"]
    model.requires_grad_(False)
    frozen = ms.calibrate(model, batches, gather=("gradients",), loss=loss)["layer.weight"]
    np.testing.assert_allclose(frozen.gradient, expected.gradient, rtol=1e-6)
    assert not model.layer.weight.requires_grad


class Modulated(torch.nn.Module):
    """Linear layers with names that, without `.weight`, are those of scales and state parameters."""

    def __init__(self):
        super().__init__()
        for name in MODULATED:
            setattr(self, name, torch.nn.Linear(8, 8))

    def forward(self, inputs):
        return self.D(self.smooth(inputs * self.gamma(inputs) + self.to_scale(self.beta(inputs))))


MODULATED = ("gamma", "beta", "to_scale", "smooth", "D")


def test_layers_with_the_names_of_scales_are_calibrated():
    model, batches = Modulated(), [torch.randn(4, 8)]
    gathered = ms.calibrate(model, batches)
    assert sorted(gathered) == sorted(f"{name}.weight" for name in MODULATED)
    assert gathered.skipped == {}
    candidates = with_layouts([Candidate(n, tuple(p.shape), "F32") for n, p in model.named_parameters()])
    assert sorted(select(candidates, ms.parse("2:4")).chosen) == sorted(gathered)
    for name in MODULATED:
        assert list(ms.calibrate(model, batches, layers=f"{name}.weight")) == [f"{name}.weight"]
        assert list(ms.calibrate(model, batches, layers=f"{name}*")) == [f"{name}.weight"]


class ByFunction(torch.nn.Linear):
    """Multiplies in a `forward` of its own."""

    def forward(self, inputs):
        return torch.nn.functional.linear(inputs, self.weight, self.bias)


def test_copies_of_weights_that_autocast_keeps_are_followed_in_all_batches(batches):
    model = torch.nn.Sequential(ByFunction(8, 8))
    with torch.autocast("cpu", torch.bfloat16):
        gathered = ms.calibrate(model, batches)
    assert gathered["0.weight"].samples == ms.calibrate(model, batches)["0.weight"].samples == 60


@pytest.mark.parametrize("name", ["forward", "_conv_forward"])
def test_a_method_that_was_replaced_for_all_layers_is_watched(batches, monkeypatch, name):
    layer = torch.nn.Linear(8, 8) if name == "forward" else torch.nn.Conv1d(3, 4, 1)
    method = getattr(type(layer), name)

    @functools.wraps(method)
    def replacement(self, inputs, *arguments):
        return method(self, 10 * inputs, *arguments)

    plain = ms.calibrate(torch.nn.Sequential(layer), batches)["0.weight"]
    monkeypatch.setattr(type(layer), name, replacement)
    replaced = ms.calibrate(torch.nn.Sequential(layer), batches)["0.weight"]
    np.testing.assert_allclose(replaced.norms, 10 * plain.norms, rtol=1e-5)


def test_a_function_in_the_place_of_torchs_own_is_watched(batches, monkeypatch):
    model, linear = torch.nn.Sequential(torch.nn.Linear(8, 8)), torch.nn.functional.linear
    plain = ms.calibrate(model, batches)["0.weight"]
    monkeypatch.setattr("torch.nn.functional.linear", lambda inputs, *others: linear(10 * inputs, *others))
    np.testing.assert_allclose(ms.calibrate(model, batches)["0.weight"].norms, 10 * plain.norms, rtol=1e-5)
