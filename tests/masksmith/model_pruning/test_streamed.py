"""Blocks that are loaded one at a time: the result is that of the model in memory, and what cannot be kept is named."""

import copy

import pytest
import torch
from support.causal_models import causal_model, token_batches

import masksmith as ms
from masksmith.model_pruning import Options, prune_streamed


class CopiedBlocks:
    """The weights of a copy of the model; it counts how many blocks have theirs at once."""

    def __init__(self, model):
        self.dense, self.model, self.reports = copy.deepcopy(model), model, []
        self.loaded, self.most = set(), 0
        self.pruned = {}

    def load_outside(self):
        self._load(lambda name: ".layers." not in name and ".h." not in name)

    def release_outside(self):
        self._release(lambda name: ".layers." not in name and ".h." not in name)

    def load(self, block):
        self.loaded.add(block)
        self.most = max(self.most, len(self.loaded))
        self._load(lambda name: name.startswith(f"{block}."))

    def release(self, block):
        self.loaded.remove(block)
        self._release(lambda name: name.startswith(f"{block}."))

    def finish(self, position, report):
        self.reports.append(report)
        for weight in report.weights:
            self.pruned[weight.name] = self.model.get_parameter(weight.name).detach().clone()

    def _load(self, chooses):
        self._set(chooses, lambda parameter: parameter.detach().clone())

    def _release(self, chooses):
        self._set(chooses, lambda parameter: torch.empty_like(parameter, device="meta"))

    def _set(self, chooses, value):
        for name, parameter in self.dense.named_parameters():
            if chooses(name):
                path, _, own = name.rpartition(".")
                self.model.get_submodule(path)._parameters[own] = torch.nn.Parameter(value(parameter))


def empty(model):
    """The model, with its parameters on the meta device, and where they come from."""
    source = CopiedBlocks(model)
    source._release(lambda name: True)
    return source


@pytest.mark.parametrize(
    ("kind", "options"),
    [("gpt2", {"tune_steps": None}), ("gpt_oss", {})]
    + [pytest.param(kind, {}, marks=pytest.mark.slow) for kind in ("llama", "opt", "mixtral")]
    + [("llama", options) for options in ({}, {"order": "sequential"}, {"inputs_from": "dense"})],
)
def test_the_result_is_that_of_the_model_in_memory(tmp_path, kind, options):
    expected, batches = causal_model(kind), token_batches(padded=kind == "llama")
    options = {"update": "reconstruct", "few_tokens": "without data", "tune_steps": 4, **options}
    report = ms.prune(expected, batches, "2:4", **options)
    source = empty(causal_model(kind))
    prune_streamed(source.model, batches, source, tmp_path, "2:4", options=Options(**options))
    assert source.pruned.keys() == report.masks.keys()
    for name, weight in source.pruned.items():
        assert torch.equal(weight, expected.get_parameter(name)), name
    for one, other in zip(source.reports, report.blocks, strict=True):
        assert (one.error_before, one.error_after) == (other.error_before, other.error_after)
    assert source.most == 1


class Block(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.first = torch.nn.Linear(16, 16)

    def forward(self, inputs, extra=None):
        return inputs + torch.relu(self.first(inputs))


class Model(torch.nn.Module):
    """Two blocks; `extra` makes a further argument of the second."""

    def __init__(self, extra=lambda inputs: None, block=Block):
        super().__init__()
        torch.manual_seed(0)
        self.layers = torch.nn.ModuleList([block(), block()])
        self.extra = extra

    def forward(self, inputs):
        inputs = self.layers[0](inputs)
        return self.layers[1](inputs, extra=self.extra(inputs))


class Nested(torch.nn.Module):
    """A model whose blocks have a name with a dot before it, as `CopiedBlocks` expects."""

    def __init__(self, **options):
        super().__init__()
        self.model = Model(**options)

    def forward(self, inputs):
        return self.model(inputs)


def refused(tmp_path, model, match, batches=None):
    source = empty(model)
    batches = [torch.randn(8, 16, 16)] if batches is None else batches
    with pytest.raises(ms.PruningError, match=match) as caught:
        prune_streamed(source.model, batches, source, tmp_path, "2:4", options=Options(update=None))
    assert "forward" not in vars(source.model.model.layers[0])
    return caught.value


def test_an_argument_that_depends_on_the_blocks_before_is_refused(tmp_path):
    error = refused(tmp_path, Nested(extra=lambda inputs: inputs.mean(-1)), "is computed from what the blocks before")
    assert error.name == "model.layers.1"


DEPENDENT = {
    "larger": lambda inputs: inputs.abs().sum(-1) > 0,
    "smaller": lambda inputs: inputs.mean(-1) < 0,
    "index": lambda inputs: inputs.argmax(-1),
    "int": lambda inputs: int(inputs[0, 0].argmin()),
    "finite": lambda inputs: inputs.isfinite(),
    "chosen": lambda inputs: torch.where(inputs > 0, 0.0, -1.0),
}


@pytest.mark.parametrize("extra", DEPENDENT)
def test_an_argument_that_depends_on_the_blocks_before_and_is_never_nan_is_refused(tmp_path, extra):
    error = refused(tmp_path, Nested(extra=DEPENDENT[extra]), "is computed from what the blocks before")
    assert error.name == "model.layers.1"


def test_an_argument_that_no_file_can_hold_is_refused(tmp_path):
    error = refused(tmp_path, Nested(extra=lambda inputs: {1, 2}), "an argument of set, which cannot be written")
    assert error.name == "model.layers.1"


def test_a_cache_by_position_is_refused(tmp_path):
    class WithCache(Block):
        def forward(self, inputs, layer_past=None, *, extra=None):
            return super().forward(inputs if layer_past is None else inputs + layer_past)

    class Caching(Nested):
        def forward(self, inputs):
            for block in self.model.layers:
                inputs = block(inputs, torch.ones(16))
            return inputs

    assert refused(tmp_path, Caching(block=WithCache), "is called with a cache of keys").name == "model.layers.0"


def test_a_block_that_returns_an_object_is_refused(tmp_path):
    class Box(list):
        """A container that is not supported."""

    class Boxes(Block):
        def forward(self, inputs, extra=None):
            return Box([super().forward(inputs)])

    assert refused(tmp_path, Nested(block=Boxes), "it returns Box; only tensors").name == "model.layers.0"


def test_no_batch_is_refused(tmp_path):
    refused(tmp_path, Nested(), "there is no batch to calibrate with", [])


def test_a_damaged_file_is_named(tmp_path):
    source = empty(Nested())
    batches = [torch.randn(8, 16, 16)]
    prune_streamed(source.model, batches, source, tmp_path, "2:4", options=Options(update=None))
    file = tmp_path / "calls" / "inputs" / "00000.safetensors"
    file.write_bytes(file.read_bytes()[:-8])
    again = empty(Nested())
    with pytest.raises(ms.PruningError, match=r"inputs/00000.safetensors is damaged"):
        prune_streamed(again.model, batches, again, tmp_path, "2:4", options=Options(update=None))
