"""Tensors that a model, a block or a caller changes in place while the calls of blocks are recorded and repeated."""

import threading
from collections import OrderedDict
from typing import NamedTuple

import pytest
import torch

import masksmith as ms
from masksmith.model_pruning import Options, prune_streamed
from masksmith.model_pruning.blocks import find_blocks
from masksmith.model_pruning.calls import copy_of
from masksmith.model_pruning.capture import capture, prepared
from masksmith.model_pruning.captured import CapturedInMemory


class Block(torch.nn.Module):
    """A linear layer on the sum of its arguments."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(16, 16, bias=False)

    def forward(self, inputs, shift):
        return self.layer(inputs + (shift if isinstance(shift, torch.Tensor) else self.shift_in(shift)))

    @staticmethod
    def shift_in(container):
        return container["shift"] if isinstance(container, dict) else container.shift


class Model(torch.nn.Module):
    """Blocks that get the same shift."""

    def __init__(self, count=2, block=Block):
        super().__init__()
        torch.manual_seed(0)
        self.blocks = torch.nn.ModuleList([block() for _ in range(count)])

    def shift(self, inputs):
        return inputs.abs().amax() * torch.ones(1)

    def forward(self, inputs):
        shift = self.shift(inputs)
        for block in self.blocks:
            inputs = block(inputs, shift)
        return inputs


class Shift(NamedTuple):
    shift: torch.Tensor


class Buffered(Model):
    """A model that keeps the shift in a buffer."""

    def __init__(self, container=lambda shift: shift):
        super().__init__()
        self.container = container
        self.register_buffer("buffer", torch.zeros(1))

    def shift(self, inputs):
        return self.container(self.buffer.copy_(super().shift(inputs)))


def batches():
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(2, 64, 16, generator=generator) * factor for factor in (1, 30)]


def energies(model, batches):
    report = ms.prune(model, batches, "2:4", update=None, inputs_from="dense")
    return [weight.energy for block in report.blocks for weight in block.weights]


CONTAINERS = {"tensor": lambda shift: shift, "tuple": Shift, "mapping": lambda shift: OrderedDict(shift=shift)}


@pytest.mark.parametrize("container", CONTAINERS.values(), ids=CONTAINERS)
def test_an_argument_has_the_values_of_its_own_batch(container):
    assert energies(Buffered(container), batches()) == energies(Model(), batches())


def test_batches_may_be_made_in_the_same_tensors():
    class Direct(Model):
        def forward(self, inputs, shift):
            for block in self.blocks:
                inputs = block(inputs, shift)
            return inputs

    def in_the_same_tensors():
        pair = [torch.empty(2, 64, 16), torch.empty(2, 64, 16)]
        for batch in batches():
            yield tuple(tensor.copy_(value) for tensor, value in zip(pair, (batch, batch.flip(0)), strict=True))

    expected = energies(Direct(), [(batch, batch.flip(0)) for batch in batches()])
    assert energies(Direct(), in_the_same_tensors()) == expected


def test_a_block_may_return_the_same_tensor_in_each_batch():
    class Returning(Block):
        def __init__(self):
            super().__init__()
            self.register_buffer("output", torch.empty(2, 64, 16))

        def forward(self, inputs, shift):
            return self.output.copy_(super().forward(inputs, shift))

    report, expected = (
        ms.prune(Model(block=block), batches(), "2:4", update=None, inputs_from="dense") for block in (Returning, Block)
    )
    for one, other in zip(report.blocks, expected.blocks, strict=True):
        assert [weight.energy for weight in one.weights] == [weight.energy for weight in other.weights]
        assert (one.error_before, one.error_after) == (other.error_before, other.error_after)


class Source:
    """The weights of a model in memory."""

    def __init__(self):
        self.reports = []

    def load_outside(self):
        """Do nothing."""

    release_outside = load_outside

    def load(self, block):
        """Do nothing."""

    release = load

    def finish(self, position, report):
        self.reports.append(report)


class Changing(Block):
    """A block that changes its argument."""

    def forward(self, inputs, shift):
        outputs = super().forward(inputs, shift)
        shift.add_(5)
        return outputs


@pytest.mark.parametrize("number", [0, 1])
def test_a_block_that_changes_an_argument_in_place_is_refused_when_it_is_streamed(tmp_path, number):
    model = Model(3)
    model.blocks[number] = Changing()
    with pytest.raises(ms.PruningError, match="a tensor among its arguments is changed in place") as caught:
        prune_streamed(model, batches(), Source(), tmp_path, "2:4", options=Options(update=None))
    assert caught.value.name == f"blocks.{number}"


def test_a_copy_repeats_the_entries_that_the_tensor_repeats():
    for tensor in (torch.randn(1, 1, 5).expand(4, 3, 5), torch.randn(3, 1).expand(3, 4).mT, torch.randn(2, 3).mT):
        copy = copy_of(tensor)
        assert torch.equal(copy, tensor)
        assert copy.data_ptr() != tensor.data_ptr()
        assert copy.untyped_storage().nbytes() == tensor.untyped_storage().nbytes()


def test_pruned_blocks_do_not_run_with_copies_of_dense_weights_that_autocast_keeps():
    class Casting(Block):
        def forward(self, inputs, shift):
            with torch.autocast("cpu", torch.bfloat16):
                return super().forward(inputs, shift).float()

    def errors():
        report = ms.prune(Model(block=Casting), batches(), "2:4", update=None, few_tokens="without data")
        return [block.error_after for block in report.blocks]

    with torch.autocast("cpu", torch.bfloat16):
        within = errors()
    assert within == errors()
    assert within[0] > 0


def test_arguments_that_are_equal_in_all_batches_take_memory_once():
    """Copies of a mask that all batches share; those of a mask that differs are kept apart."""
    torch.manual_seed(0)
    model = Buffered()
    same, other = torch.randn(8, 16), torch.randn(8, 16)
    with prepared(model):
        captured = CapturedInMemory(capture(model, find_blocks(model), [same, -same, other, other]))
    shifts = [[captured.call(block, batch).arguments[1] for batch in range(4)] for block in range(2)]
    for of_block in shifts:
        assert [shift.item() for shift in of_block] == [same.abs().amax()] * 2 + [other.abs().amax()] * 2
        assert of_block[0] is of_block[1]
        assert of_block[2] is of_block[3]
    assert shifts[0][0] is shifts[1][0]


def test_a_parameter_of_inference_mode_among_the_arguments_is_used():
    class WithParameter(Model):
        def __init__(self):
            super().__init__()
            with torch.inference_mode():
                self.parameter = torch.nn.Parameter(torch.ones(1), requires_grad=False)

        def shift(self, inputs):
            return self.parameter

    report = ms.prune(WithParameter(), [torch.randn(128, 16)], "2:4", tune_steps=0)
    assert {weight.tokens for block in report.blocks for weight in block.weights} == {(128,)}


def test_an_argument_that_cannot_be_copied_is_named():
    class Locked(NamedTuple):
        shift: torch.Tensor
        lock: object

    model = Buffered(lambda shift: Locked(shift, threading.Lock()))
    with pytest.raises(ms.PruningError, match="its argument of the class Locked cannot be copied: cannot pickle"):
        ms.prune(model, [torch.randn(128, 16)], "2:4")


class Tied(torch.nn.Module):
    """A block that also multiplies with a weight among its arguments: a tensor, or a layer in a container."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(16, 16, bias=False)

    def forward(self, inputs, other):
        product = other["layer"] if isinstance(other, dict) else lambda x: torch.nn.functional.linear(x, other)
        return inputs + product(torch.relu(self.layer(inputs)))


@pytest.mark.parametrize(
    "pass_weight",
    [
        lambda layer: layer.weight.view(16, 16),
        lambda layer: layer.weight.t().t(),
        lambda layer: layer.weight.detach(),
        lambda layer: OrderedDict(layer=layer, number=torch.ones(2)),
    ],
    ids=["view", "transposed twice", "detached", "layer"],
)
def test_weights_that_other_blocks_get_are_not_copied(pass_weight):
    class Sharing(Model):
        def __init__(self):
            super().__init__(block=Tied)

        def forward(self, inputs):
            for block in self.blocks:
                inputs = block(inputs, pass_weight(self.blocks[0].layer))
            return inputs

    torch.manual_seed(0)
    model, batches = Sharing(), [torch.randn(4, 32, 16) for _ in range(3)]
    report = ms.prune(model, batches, "2:4", update=None, tune_steps=0)
    tokens = {weight.name: weight.tokens for block in report.blocks for weight in block.weights}
    assert tokens == {"blocks.0.layer.weight": (768,), "blocks.1.layer.weight": (384,)}
