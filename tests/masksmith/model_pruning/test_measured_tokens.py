"""The batches in which the errors of a block's output are measured."""

import copy

import pytest
import torch

import masksmith as ms
from masksmith.model_pruning import block_run

BATCHES, ROWS, WIDTH = 4, 16, 16


class Block(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(WIDTH, WIDTH)

    def forward(self, inputs):
        return inputs + torch.tanh(self.layer(inputs))


class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks = torch.nn.ModuleList(Block() for _ in range(3))

    def forward(self, inputs):
        for block in self.blocks:
            inputs = block(inputs)
        return inputs


def seeded_model():
    torch.manual_seed(3)
    return Model().eval()


def batches():
    generator = torch.Generator().manual_seed(4)
    return [torch.randn(2, ROWS // 2, WIDTH, generator=generator) for _ in range(BATCHES)]


def error_of_last_block(model, dense, inputs):
    with torch.no_grad():
        outputs, targets = (torch.cat([each(batch) for batch in inputs]) for each in (model, dense))
    return float(((outputs - targets).square().sum(-1) / targets.square().sum(-1)).mean())


@pytest.mark.parametrize(
    ("options", "least", "measured"),
    [
        ({}, 4096, BATCHES),
        ({}, ROWS + 1, 2),
        ({}, 1, 1),
        ({"inputs_from": "dense"}, 1, BATCHES),
        ({"tune_steps": 2, "tune_rate": 1e-4}, 1, BATCHES),
    ],
)
def test_errors_are_means_over_the_first_batches_with_enough_tokens(monkeypatch, options, least, measured):
    monkeypatch.setattr(block_run, "MEASURED_TOKENS", least)
    model, dense = seeded_model(), seeded_model()
    report = ms.prune(model, batches(), "2:4", update="reconstruct", min_tokens=1, **{"tune_steps": 0, **options})
    expected = error_of_last_block(model, dense, batches()[:measured])
    assert report.blocks[-1].error_after == pytest.approx(expected, rel=1e-4)
    assert {block.measured_tokens for block in report.blocks} == {measured * ROWS}


def test_weights_do_not_depend_on_how_many_batches_are_measured(monkeypatch):
    models = []
    for least in (1, 4096):
        monkeypatch.setattr(block_run, "MEASURED_TOKENS", least)
        models.append(seeded_model())
        ms.prune(models[-1], batches(), "2:4", update="admm", min_tokens=1, tune_steps=0)
    assert all(torch.equal(one, other) for one, other in zip(*map(torch.nn.Module.parameters, models), strict=True))


def test_outputs_of_batches_that_are_not_measured_must_be_finite(monkeypatch):
    monkeypatch.setattr(block_run, "MEASURED_TOKENS", 1)
    model = seeded_model()
    last = model.blocks[-1]
    original = last.forward
    last.forward = lambda inputs: original(inputs) * (float("inf") if bool((inputs > 50).any()) else 1)
    inputs = batches()
    inputs[2] = inputs[2] + 100
    before = copy.deepcopy(dict(model.named_parameters()))
    with pytest.raises(ms.PruningError, match=r"output contains NaN or infinity in batch 2"):
        ms.prune(model, inputs, "2:4", update=None, min_tokens=1)
    assert all(torch.equal(value, before[name]) for name, value in model.named_parameters())
