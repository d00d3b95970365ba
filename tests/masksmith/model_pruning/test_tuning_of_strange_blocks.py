"""Blocks of 16 bits, with buffers, without gradients or with values that are not finite: tuned, or left as they are."""

import copy

import pytest
import torch
from support.causal_models import causal_model, token_batches

import masksmith as ms

INPUTS = [torch.randn(2, 32, 16, generator=torch.Generator().manual_seed(number)) for number in range(2)]


class Block(torch.nn.Module):
    """A residual block, with what a test adds."""

    def __init__(self):
        super().__init__()
        self.up, self.down = torch.nn.Linear(16, 32), torch.nn.Linear(32, 16)

    def forward(self, inputs):
        return inputs + self.down(torch.relu(self.up(inputs)))


class Stacked(torch.nn.Module):
    """Four experts in two stacked parameters; each expert computes all tokens."""

    def __init__(self):
        super().__init__()
        self.up, self.down = (torch.nn.Parameter(torch.randn(4, *shape) / 4) for shape in ((32, 16), (16, 32)))

    def products(self, inputs, weight):
        return torch.stack([each @ matrix.T for each, matrix in zip(inputs, weight, strict=True)])

    def forward(self, inputs):
        hidden = torch.relu(self.products(inputs.reshape(1, -1, 16).expand(4, -1, -1), self.up))
        return inputs + self.products(hidden, self.down).sum(0).reshape(inputs.shape)


class StackedTogether(Stacked):
    def products(self, inputs, weight):
        return torch.bmm(inputs, weight.mT)


class NotDifferentiable(torch.autograd.Function):
    @staticmethod
    def forward(context, values):
        return values.clone()


class RunningMean(Block):
    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.zeros(16))

    def forward(self, inputs):
        outputs = super().forward(inputs)
        self.mean.mul_(0.9).add_(outputs.mean((0, 1)), alpha=0.1)
        return outputs - self.mean


class InPlace(Block):
    def forward(self, inputs):
        gate = torch.sigmoid(self.up(inputs))
        outputs = inputs + self.down(gate)
        gate.mul_(2)
        return outputs


class WithoutBackward(Block):
    def forward(self, inputs):
        return NotDifferentiable.apply(super().forward(inputs))


class WithoutGradient(Block):
    def forward(self, inputs):
        with torch.no_grad():
            return super().forward(inputs)


class NaNGradient(Block):
    def forward(self, inputs):
        outputs = super().forward(inputs)
        return outputs + 0 * torch.sqrt((outputs - outputs).abs())


class Model(torch.nn.Module):
    def __init__(self, block):
        super().__init__()
        torch.manual_seed(0)
        self.blocks = torch.nn.ModuleList([block(), block()])

    def forward(self, inputs):
        for block in self.blocks:
            inputs = block(inputs)
        return inputs


def prune(model, **options):
    return ms.prune(model, INPUTS, "2:4", update="reconstruct", min_tokens=1, **options)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("kind", ["llama", "opt"])
def test_weights_of_16_bits_are_tuned(kind, dtype):
    model = causal_model(kind).to(dtype)
    report = ms.prune(model, token_batches(), "2:4", update="reconstruct")
    for block in report.blocks:
        assert block.tuning.stopped is None
        assert block.tuning.error_after < 0.5 * block.tuning.error_before
    for name, mask in report.masks.items():
        assert model.get_parameter(name).dtype is dtype
        assert not bool(model.get_parameter(name)[~mask].any())


@pytest.mark.parametrize(
    ("block", "reason"),
    [
        (InPlace, "it cannot be differentiated: one of the variables needed"),
        (WithoutBackward, "it cannot be differentiated: "),
        (WithoutGradient, "its output has no gradient"),
        (NaNGradient, "a gradient contains NaN or infinity in step 1, batch 0"),
    ],
)
def test_a_block_that_cannot_be_tuned_keeps_the_weights_of_its_update(block, reason):
    model, expected = Model(block), Model(block)
    report = prune(model)
    prune(expected, tune_steps=0)
    for each in report.blocks:
        assert each.tuning.stopped.startswith(reason)
        assert each.tuning.error_after == each.tuning.error_before
        assert f"not tuned: {each.name}: {reason}" in str(report)
    assert all(torch.equal(one, other) for one, other in zip(model.parameters(), expected.parameters(), strict=True))


def test_gradients_may_have_other_strides_than_their_weights():
    model, expected = Model(StackedTogether), Model(Stacked)
    report = prune(model, tune_steps=8)
    prune(expected, tune_steps=8)
    assert report.blocks[0].tuning.error_after < report.blocks[0].tuning.error_before
    for one, other in zip(model.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


def test_weights_that_diverge_are_restored():
    model, expected = Model(Block), Model(Block)
    report = prune(model, tune_rate=1e30)
    prune(expected, tune_steps=0)
    assert all(each.tuning.error_after == each.tuning.error_before for each in report.blocks)
    assert all(torch.equal(one, other) for one, other in zip(model.parameters(), expected.parameters(), strict=True))


def test_buffers_are_those_of_a_run_without_tuning_and_hold_no_graph():
    model = Model(RunningMean)
    report = prune(model)
    assert report.blocks[0].tuning.stopped is None
    assert not any(buffer.requires_grad for buffer in model.buffers())
    copy.deepcopy(model)


def test_a_gradient_of_the_caller_stays():
    model = Model(Block)
    model.blocks[0].up.weight.grad = torch.ones(32, 16)
    prune(model)
    assert torch.equal(model.blocks[0].up.weight.grad, torch.ones(32, 16))
    assert model.blocks[0].down.weight.grad is None


def test_matrices_without_data_are_not_tuned():
    model, untuned = causal_model("mixtral"), causal_model("mixtral")
    options = {"update": "reconstruct", "few_tokens": "without data", "min_tokens": 90, "layers": "model.layers.0.*"}
    report = ms.prune(model, token_batches(), "2:4", **options)
    ms.prune(untuned, token_batches(), "2:4", tune_steps=0, **options)
    (weight,) = [each for each in report.blocks[0].weights if "gate_up" in each.name]
    assert 0 < len(weight.without_data) < len(weight.tokens)
    for number in range(len(weight.tokens)):
        pair = [each.get_parameter(weight.name)[number] for each in (model, untuned)]
        assert torch.equal(*pair) == (f"{weight.name}[{number}]" in weight.without_data)
