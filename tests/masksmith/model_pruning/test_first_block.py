"""Calls of all blocks are recorded while only the first block computes, unless a call depends on what blocks return."""

import numpy as np
import pytest
import torch

import masksmith as ms

BLOCKS, BATCHES = 3, 4


class Block(torch.nn.Module):
    """Two products with the same inputs, and a third one; counts its calls."""

    def __init__(self):
        super().__init__()
        self.gate, self.up = torch.nn.Linear(16, 32), torch.nn.Linear(16, 32)
        self.down = torch.nn.Linear(32, 16)
        self.calls = 0

    def forward(self, inputs, scale, is_even=None):
        self.calls += 1
        hidden = torch.relu(self.gate(inputs)) * self.up(inputs) * scale
        return inputs + self.down(hidden if is_even is None else hidden * is_even[:, None])


class Model(torch.nn.Module):
    """Blocks with an argument that depends on the batch alone."""

    def __init__(self, block=Block):
        super().__init__()
        torch.manual_seed(0)
        self.blocks = torch.nn.ModuleList([block() for _ in range(BLOCKS)])

    def forward(self, inputs):
        scale = inputs.mean().abs() + 1
        for block in self.blocks:
            inputs = block(inputs, scale, self.is_even(inputs))
        return inputs

    def is_even(self, outputs):
        return None


class DependentModel(Model):
    """Each block gets a bool tensor that is computed from the outputs of the block before it."""

    def is_even(self, outputs):
        return outputs.sum(1) > 0


class Odd:
    """An argument whose comparison raises."""

    def __eq__(self, other):
        raise ValueError("not comparable")

    __hash__ = None


class ArgumentsOfOneRun(Model):
    """Each run calls the blocks with arguments that `arguments` returns for its number."""

    def __init__(self, arguments):
        super().__init__(BlockWithOptions)
        self.arguments, self.runs = arguments, 0

    def forward(self, inputs):
        arguments, self.runs = self.arguments(self.runs), self.runs + 1
        for block in self.blocks:
            inputs = block(inputs, *arguments)
        return inputs


class BlockWithOptions(Block):
    """Has an optional argument that changes what it computes."""

    def forward(self, inputs, *options, **more):
        return super().forward(inputs, 1.0 + len(options))


def batches():
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(96, 16, generator=generator) for _ in range(BATCHES)]


def calls_of(model, **options):
    report = ms.prune(model, batches(), "2:4", update=None, **options)
    return report, [block.calls for block in model.blocks]


def test_only_the_first_batch_runs_through_all_blocks():
    _, calls = calls_of(Model())
    # To prune a block, all batches run densely, on pruned inputs, and once more after pruning. The first block has no
    # pruned inputs; while calls are recorded it runs once for each batch, and again for the first one.
    assert calls == [2 * BATCHES + BATCHES + 1, *[3 * BATCHES + 1] * (BLOCKS - 1)]


def test_a_call_that_depends_on_outputs_is_recorded_from_the_whole_model():
    _, calls = calls_of(DependentModel())
    assert calls[1:] == [3 * BATCHES + BATCHES] * (BLOCKS - 1)


@pytest.mark.parametrize(
    ("arguments", "are_all_blocks_run"),
    [
        (lambda run: (np.arange(3),), True),
        (lambda run: (Odd(),), True),
        (lambda run: (None,) * (run % 2), True),
        (lambda run: ({"left" if run % 2 else "right": 1},), True),
        (lambda run: ([1, (2.5, "text")], {"key": None}), False),
    ],
    ids=["numpy", "raises", "none-more", "other-key", "equal"],
)
def test_arguments_that_are_not_known_to_be_equal_are_recorded_from_the_whole_model(arguments, are_all_blocks_run):
    _, calls = calls_of(ArgumentsOfOneRun(arguments))
    recorded = BATCHES if are_all_blocks_run else 1
    assert calls[1:] == [3 * BATCHES + recorded] * (BLOCKS - 1)


@pytest.mark.parametrize("kind", [Model, DependentModel])
def test_the_statistics_are_those_of_one_batch_at_a_time(kind):
    """With one batch all blocks compute; sums over batches are those of single batches."""
    model = kind()
    report, _ = calls_of(model, inputs_from="dense", scores="magnitude")
    energies = {weight.name: weight.energy for block in report.blocks for weight in block.weights}
    single = dict.fromkeys(energies, 0.0)
    for batch in batches():
        for block in ms.prune(kind(), [batch], "2:4", update=None, inputs_from="dense", scores="magnitude").blocks:
            for weight in block.weights:
                single[weight.name] += weight.energy
    assert energies == pytest.approx(single, rel=1e-5)


class ChangingBlock(Block):
    """Changes the inputs in place between two products."""

    def forward(self, inputs, scale, is_even=None):
        changed = inputs.clone()
        gate = self.gate(changed)
        changed.mul_(2)
        return inputs + self.down(torch.relu(gate) * self.up(changed))


def test_inputs_that_change_in_place_have_statistics_of_their_own():
    model = Model(ChangingBlock)
    with torch.no_grad():
        for block in model.blocks:
            block.up.weight.copy_(block.gate.weight)
    report, _ = calls_of(model)
    for block in report.blocks:
        energy = {weight.name.split(".")[-2]: weight.energy for weight in block.weights}
        assert energy["up"] == pytest.approx(4 * energy["gate"], rel=1e-5)
