"""Models and batches that cannot be pruned block by block: named, and the model left as it was."""

import inspect
from collections import OrderedDict
from typing import NamedTuple

import pytest
import torch
from support.causal_models import causal_model, token_batches
from torch.nn.utils import parametrizations

import masksmith as ms
from masksmith.model_pruning.options import SCORE_OPTIONS, UPDATE_OPTIONS


class Block(torch.nn.Module):
    """A residual layer."""

    def __init__(self, width=16):
        super().__init__()
        self.first, self.second = torch.nn.Linear(width, 32), torch.nn.Linear(32, width)

    def forward(self, inputs):
        return inputs + self.second(torch.relu(self.first(inputs)))


class Model(torch.nn.Module):
    """Three blocks."""

    def __init__(self, block=Block):
        super().__init__()
        torch.manual_seed(0)
        self.blocks = torch.nn.ModuleList([block() for _ in range(3)])

    def between(self, inputs):
        return inputs

    def forward(self, inputs):
        for block in self.blocks:
            inputs = self.between(block(inputs))
        return inputs


def inputs(seed=0):
    return [torch.randn(8, 16, 16, generator=torch.Generator().manual_seed(seed))]


def assert_refused(model, batches, match, pattern="2:4", **options):
    """Check the message, and that weights, modes and hooks are as before."""
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    training = [module.training for module in model.modules()]
    with pytest.raises(ms.PruningError, match=match) as caught:
        ms.prune(model, batches, pattern, **{"update": None} | options)
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name]) or bool(torch.isnan(before[name]).any()), name
    assert [module.training for module in model.modules()] == training
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    return caught.value


def test_a_model_without_blocks():
    model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.ReLU(), torch.nn.Linear(8, 8))
    assert_refused(model, [torch.randn(4, 8)], "the model has no list of blocks")


def test_a_list_of_blocks_that_does_not_exist():
    assert_refused(Model(), inputs(), r"blocks='layers' is not a list of modules; there are 'blocks'", blocks="layers")


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"scores": "taylor"}, "scores='taylor' is not one of: 'magnitude', 'wanda', 'ria', 'sparsegpt'"),
        ({"update": "obs"}, "update='obs' is not one of"),
        ({"inputs_from": "both"}, "inputs_from='both' is not one of"),
        ({"few_tokens": "skip"}, "few_tokens='skip' is not one of: 'refuse', 'without data'"),
        ({"min_tokens": 0}, "min_tokens=0 must be at least 1"),
        ({"threads": 1.5}, "threads=1.5 must be a whole number, at least 1"),
        ({"update_options": {"damping": 0.1}}, "update_options damping need an update"),
        ({"layers": "nothing.*"}, r"nothing\.\*"),
        ({"scores": "ria", "score_options": {"powr": 1}}, "score_options has 'powr', which ria .* options: 'power'$"),
        ({"update": "admm", "update_options": {"dampin": 1}}, "update_options has 'dampin', which admm does not take"),
    ],
)
def test_options_that_do_not_exist(options, match):
    def batches():
        pytest.fail("the model was run")
        yield

    assert_refused(Model(), batches(), match, **options)


def test_the_options_of_scores_and_updates_are_those_of_their_functions():
    given_by_prune = {"weight", "norms", "gram", "inverse_diagonal", "column_sums", "mask", "pattern", "start"}
    ours = {"name", "threads", "on_progress"} | given_by_prune
    for table in (SCORE_OPTIONS, UPDATE_OPTIONS):
        for method in filter(None, table):
            parameters = inspect.signature(getattr(ms, method)).parameters.keys()
            assert {*table[method]} == parameters - ours, method


def test_no_batch():
    assert_refused(Model(), [], "there is no batch to calibrate with")


def test_batches_of_the_wrong_keys():
    batch = token_batches(padded=True)[0]
    batch["attention_msk"] = batch.pop("attention_mask")
    match = "batch 0 has attention_msk, but the model takes input_ids, attention_mask, "
    assert_refused(causal_model("llama"), [batch], match)
    assert_refused(Model(), [{"input_ids": inputs()[0]}], "batch 0 has input_ids, but the model takes inputs")


def test_batches_without_a_key_that_the_model_needs():
    assert_refused(Model(), [{}], r"batch 0 .* does not fit the model: TypeError: .*'inputs'")


def test_a_batch_of_the_wrong_width():
    assert_refused(
        Model(), [*inputs(), torch.randn(4, 4, 8)], r"batch 1 \(Tensor\) does not fit the model: RuntimeError"
    )


def test_a_padding_mask_of_an_unknown_shape():
    batch = token_batches()[0]
    mask = torch.zeros(4, 1, 24, 24).masked_fill(torch.ones(24, 24).triu(1).bool(), -1e9)
    assert_refused(causal_model("llama"), [batch | {"attention_mask": mask}], "which tokens are padding is not known")


def test_a_batch_of_padding_alone():
    batch = token_batches()[0]
    mask = torch.zeros_like(batch["input_ids"])
    assert_refused(causal_model("opt"), [batch | {"attention_mask": mask}], "batch 0 holds nothing but padding")


def test_activations_that_are_not_finite_name_block_layer_and_batch():
    model = Model()
    model.blocks[1].first.bias.data[3] = float("nan")
    error = assert_refused(model, inputs(), "its inputs hold NaN or infinity in batch 0")
    assert error.name == "blocks.1.second.weight"


def test_inputs_that_are_not_finite_name_the_batch():
    bad = inputs(1)[0].index_fill(0, torch.tensor([2]), float("inf"))
    assert assert_refused(Model(), [*inputs(), bad], "in batch 1").name == "blocks.0.first.weight"


def test_a_model_that_changes_activations_between_blocks():
    for between in (lambda each: each * 2, lambda each: each.mul_(2)):
        model = Model()
        model.between = between
        error = assert_refused(model, inputs(), "its input is not what blocks.0 returns")
        assert error.name == "blocks.1"


def test_a_block_that_runs_twice_or_never():
    twice, never = Model(), Model()
    twice.forward = lambda each: twice.blocks[0](twice.blocks[0](each))
    never.forward = lambda each: never.blocks[1](never.blocks[0](each))
    assert assert_refused(twice, inputs(), "it runs several times in one pass").name == "blocks.0"
    assert assert_refused(never, inputs(), "batch 0 does not run it").name == "blocks.2"


class Pair(NamedTuple):
    """A container of tensors that is neither a plain tuple nor a dict."""

    hidden: torch.Tensor
    other: torch.Tensor


@pytest.mark.parametrize("container", [Pair, lambda hidden, other: OrderedDict(hidden=hidden, other=other)])
def test_an_output_of_the_previous_block_in_a_container_that_cannot_be_filled(container):
    class TakesContainer(Block):
        def forward(self, inputs):
            if not isinstance(inputs, torch.Tensor):
                inputs = inputs["hidden"] if isinstance(inputs, dict) else inputs.hidden
            return super().forward(inputs)

    model = Model(TakesContainer)
    model.between = lambda output: container(output, torch.ones(1))
    match = "its argument of the class (Pair|OrderedDict) contains an output of blocks.0; let the model pass tensors"
    error = assert_refused(model, inputs(), match)
    assert error.name == "blocks.1"


@pytest.mark.parametrize("place", ["block", "model"])
def test_an_argument_that_is_changed_in_place(place):
    class Shifted(Block):
        def forward(self, inputs, shift):
            outputs = super().forward(inputs) + shift
            if place == "block":
                shift.add_(1)
            return outputs

    class ShiftedModel(Model):
        def forward(self, inputs):
            shift = torch.zeros(1)
            for block in self.blocks:
                inputs = block(inputs, shift)
                if place == "model":
                    shift.add_(1)
            return inputs

    error = assert_refused(ShiftedModel(Shifted), inputs(), "a tensor among its arguments is changed in place")
    assert error.name == "blocks.0"


def test_blocks_that_share_a_weight():
    model = Model()
    model.blocks[2].first.weight = model.blocks[0].first.weight
    assert assert_refused(model, inputs(), r"it shares the parameter 'first.weight' with blocks.0").name == "blocks.2"


class Tied(torch.nn.Module):
    """One layer under two names."""

    def __init__(self):
        super().__init__()
        self.first = self.second = torch.nn.Linear(16, 16)

    def forward(self, inputs):
        return inputs + self.second(torch.relu(self.first(inputs)))


@pytest.mark.parametrize("text", ["blocks.0.second", "blocks.0.second.weight", "*.0.second*"])
def test_a_weight_of_two_names_may_be_given_by_either(text):
    report = ms.prune(Model(Tied), inputs(), "2:4", update=None, layers=text)
    assert list(report.masks) == ["blocks.0.first.weight"]
    assert report.shared_names["blocks.0.second.weight"] == "blocks.0.first.weight"
    report = ms.prune(Model(Tied), inputs(), {"blocks.0.second": "2:4"}, update=None)
    assert list(report.masks) == ["blocks.0.first.weight"]


def test_the_names_of_a_weight_have_one_pattern():
    patterns = {"*": "2:4", "blocks.0.second": "1:4"}
    error = assert_refused(Model(Tied), inputs(), r"'blocks.0.second.weight' is another name .* differ", patterns)
    assert error.name == "blocks.0.first.weight"


def test_a_pattern_for_weights_that_stay_dense():
    patterns = {"*": "2:4", "first.bias": "1:4"}
    with pytest.raises(ms.PatternError, match=r"first.bias'=1:4: 'blocks.0.first.bias' stays dense \(fewer than two"):
        ms.prune(Model(), inputs(), patterns, update=None)
    report = ms.prune(Model(), inputs(), {"*": "2:4", "first": "1:4"}, update=None, exclude="*.first")
    assert len(report.masks) == 3


def test_parametrized_weights_are_refused_unless_excluded():
    model = Model()
    parametrizations.weight_norm(model.blocks[1].first)
    assert_refused(model, inputs(), "blocks.1.first.parametrizations.*its layer is parametrized")
    report = ms.prune(model, inputs(), "2:4", update=None, exclude="*.parametrizations.*")
    assert len(report.masks) == 5


def test_a_weight_that_is_multiplied_in_parts():
    class Halves(Block):
        def forward(self, inputs):
            halves = [torch.nn.functional.linear(inputs, part) for part in self.first.weight.chunk(2)]
            return inputs + self.second(torch.relu(torch.cat(halves, -1)))

    assert assert_refused(Model(Halves), inputs(), "it is multiplied in parts").name == "blocks.0.first.weight"


def test_a_weight_that_is_never_multiplied():
    class Copies(Block):
        def forward(self, inputs):
            return inputs + self.second(torch.relu(inputs @ self.first.weight.clone().T))

    assert assert_refused(Model(Copies), inputs(), "it got 0 token").name == "blocks.0.first.weight"


def test_a_failure_in_a_later_block_restores_the_earlier_ones():
    model = Model()
    model.blocks[2].first.weight.data.zero_()
    model.blocks[2].first.bias.data.zero_()
    error = assert_refused(model, inputs(), "all inputs of its 128 token", update="reconstruct")
    assert error.name == "blocks.2.second.weight"


def test_an_interruption_restores_the_weights():
    model, dense, calls = Model(), Model(), []

    def interrupt(module, arguments):
        calls.append(module)
        if len(calls) == 3:
            raise KeyboardInterrupt

    model.blocks[1].register_forward_pre_hook(interrupt)
    with pytest.raises(KeyboardInterrupt):
        ms.prune(model, inputs(), "2:4")
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(model.parameters(), dense.parameters(), strict=True))


def test_inputs_that_are_always_zero_are_counted_and_dropped_first():
    model, silent = Model(), inputs()[0].clone()
    silent[..., 5] = 0
    report = ms.prune(model, [silent], "2:4", update="reconstruct")
    first, second = report.blocks[0].weights
    assert (first.silent_inputs, second.silent_inputs) == (1, 0)
    assert not report.masks["blocks.0.first.weight"][:, 5].any()
    assert bool(torch.isfinite(model.blocks[0].first.weight).all())


def test_inputs_that_are_always_zero_without_damping_are_refused_by_the_update():
    model, dense, silent = Model(), Model(), inputs()[0].clone()
    silent[..., 5] = 0
    with pytest.raises(ms.UpdateError, match=r"blocks.0.first.weight.*that input was always 0"):
        ms.prune(model, [silent], "2:4", update="admm", update_options={"damping": 0.0})
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(model.parameters(), dense.parameters(), strict=True))


def test_layers_and_blocks_called_by_keywords_only():
    class ByKeyword(Block):
        def forward(self, *, inputs):
            return inputs + self.second(input=torch.relu(self.first(input=inputs)))

    by_keyword, usual = Model(ByKeyword), Model()
    by_keyword.forward = lambda each: _by_keyword(by_keyword, each)
    reports = [ms.prune(model, inputs(), "2:4", update="reconstruct") for model in (by_keyword, usual)]
    for one, other in zip(by_keyword.parameters(), usual.parameters(), strict=True):
        assert torch.equal(one, other)
    assert [block.weights[0].tokens for block in reports[0].blocks] == [(128,)] * 3


def _by_keyword(model, each):
    for block in model.blocks:
        each = block(inputs=each)
    return each


def test_weights_that_share_one_buffer_are_told_apart():
    model, usual = Model(), Model()
    parameters = [parameter for parameter in model.parameters() if parameter.ndim == 2]
    flat, start = torch.cat([parameter.detach().reshape(-1) for parameter in parameters]), 0
    for parameter in parameters:
        parameter.data = flat[start : start + parameter.numel()].view_as(parameter)
        start += parameter.numel()
    for each in (model, usual):
        ms.prune(each, inputs(), "2:4", update="reconstruct")
    assert all(torch.equal(one, other) for one, other in zip(model.parameters(), usual.parameters(), strict=True))


class WithCache(Block):
    """A block that takes a cache, by the name that models of `transformers` use, or by another one."""

    def forward(self, inputs, past_key_values=None, states=None):
        return super().forward(inputs)


class Cache:
    """Looks like a cache of `transformers`."""

    def get_seq_length(self):
        return 0


@pytest.mark.parametrize(
    "call",
    [
        lambda block, inputs: block(inputs, past_key_values=[1]),
        lambda block, inputs: block(inputs, [1]),
        lambda block, inputs: block(inputs, None, Cache()),
        lambda block, inputs: block(inputs, states=Cache()),
    ],
    ids=["by keyword", "by position", "another name, by position", "another name, by keyword"],
)
def test_a_block_that_is_called_with_a_cache_is_refused(call):
    class Caching(Model):
        def forward(self, inputs):
            for block in self.blocks:
                inputs = call(block, inputs)
            return inputs

    assert_refused(Caching(WithCache), inputs(), "'?blocks.0'?: it is called with a cache of keys and values")
