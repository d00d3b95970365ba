"""Dense language models: the result is that of a loop with plain torch hooks, one block after the other."""

import copy
from collections import OrderedDict

import pytest
import torch
from support.causal_models import causal_model, token_batches
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper
from torch.nn.attention.flex_attention import flex_attention

import masksmith as ms
from masksmith.model_pruning import find_blocks

CLOSE = {"tolerance": 1e-6}
"""Options of `reconstruct`, so close to the minimum that the rounding of Gram matrices changes no iteration."""
BLOCKS = {"llama": "model.layers", "gpt2": "transformer.h", "opt": "model.decoder.layers"}
OUTSIDE = {
    "llama": {"model.embed_tokens.weight", "lm_head.weight"},
    "gpt2": {"transformer.wte.weight", "transformer.wpe.weight"},
    "opt": {"model.decoder.embed_tokens.weight", "model.decoder.embed_positions.weight"},
}


def prune_with_hooks(model, blocks, batches, on_dense=False):
    """Prune to 2:4 by Wanda and reconstruction, and return the statistics' tokens."""
    dense, tokens = copy.deepcopy(model), {}
    for number in range(len(model.get_submodule(blocks))):
        source = dense if on_dense else model
        grams = grams_of(source, source.get_submodule(f"{blocks}.{number}"), batches)
        for path, module in model.get_submodule(f"{blocks}.{number}").named_modules():
            if path in grams:
                gram, tokens[f"{blocks}.{number}.{path}.weight"] = grams[path]
                is_transposed = type(module).__name__ == "Conv1D"
                weight = (module.weight.T if is_transposed else module.weight).detach().contiguous()
                mask = ms.solve(ms.wanda(weight, gram.diagonal().sqrt()), "2:4").mask
                updated = ms.reconstruct(weight, mask, gram, **CLOSE).weight
                module.weight.data.copy_(updated.T if is_transposed else updated)
    return tokens


def test_a_compiled_model_is_pruned_as_the_plain_one():
    model = torch.compile(causal_model("llama"), backend="eager")
    batches = token_batches()
    plain = ms.prune(causal_model("llama"), batches, "2:4", update=None)
    pruned = ms.prune(model, batches, "2:4", update=None, blocks="model.layers")
    assert list(pruned.masks) == list(plain.masks)
    assert all(torch.equal(pruned.masks[name], mask) for name, mask in plain.masks.items())
    assert ms.verify(model.model.layers[1].mlp.up_proj.weight != 0, "2:4")


def compiled(block):
    return torch.compile(block, backend="eager")


@pytest.mark.parametrize(
    ("kind", "wrappers"),
    [("llama", [compiled, checkpoint_wrapper]), ("mixtral", [checkpoint_wrapper, checkpoint_wrapper])],
)
def test_wrapped_blocks_are_pruned_under_the_names_of_the_plain_model(kind, wrappers):
    batches, options = token_batches(padded=True), {"update": None, "few_tokens": "without data", "min_tokens": 1}
    plain = ms.prune(causal_model(kind), batches, "2:4", **options)
    model = causal_model(kind)
    for number, wrap in enumerate(wrappers):
        model.model.layers[number] = wrap(model.model.layers[number])
    pruned = ms.prune(model, batches, "2:4", **options)
    assert list(pruned.masks) == list(plain.masks)
    assert all(torch.equal(pruned.masks[name], mask) for name, mask in plain.masks.items())
    assert [weight.tokens for weight in pruned.blocks[1].weights] == [each.tokens for each in plain.blocks[1].weights]
    assert pruned.skipped == plain.skipped
    assert str(pruned.block_list) == str(plain.block_list)
    name = list(plain.masks)[-1]
    assert list(ms.prune(model, batches, "1:4", layers=name, **options).masks) == [name]


def grams_of(model, block, batches):
    inputs, kept, hooks = {}, None, []

    def keep(path):
        def hook(module, arguments):
            inputs.setdefault(path, []).append(arguments[0].reshape(*kept.shape, -1)[kept].double())

        return hook

    for path, module in block.named_modules():
        if type(module).__name__ in ("Linear", "Conv1D"):
            hooks.append(module.register_forward_pre_hook(keep(path)))
    with torch.no_grad():
        for batch in batches:
            kept = batch.get("attention_mask", torch.ones_like(batch["input_ids"])).bool()
            model.eval()(**batch, use_cache=False)
    for hook in hooks:
        hook.remove()
    rows = {path: torch.cat(each) for path, each in inputs.items()}
    return {path: (each.T @ each, len(each)) for path, each in rows.items()}


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("kind", list(BLOCKS))
def test_the_result_is_that_of_plain_hooks(kind, padded):
    model, expected = causal_model(kind), causal_model(kind)
    batches = token_batches(padded)
    tokens = prune_with_hooks(expected, BLOCKS[kind], batches)
    report = ms.prune(model, batches, "2:4", update="reconstruct", update_options=CLOSE, tune_steps=0)
    assert {weight.name: sum(weight.tokens) for block in report.blocks for weight in block.weights} == tokens
    assert set(tokens.values()) == {178 if padded else 192}
    for name, parameter in expected.named_parameters():
        torch.testing.assert_close(model.get_parameter(name), parameter, rtol=1e-3, atol=1e-4, msg=name)
    assert report.skipped.keys() == OUTSIDE[kind]


def test_a_mask_of_padding_may_be_an_argument_by_position():
    (batch, _), options = token_batches(padded=True), {"update": None, "min_tokens": 1}
    by_keyword = ms.prune(causal_model("llama"), [batch], "2:4", **options)
    by_position = ms.prune(causal_model("llama"), [list(batch.values())], "2:4", **options)
    assert {sum(weight.tokens) for block in by_position.blocks for weight in block.weights} == {82}
    assert all(torch.equal(by_position.masks[name], mask) for name, mask in by_keyword.masks.items())


def test_statistics_may_be_those_of_dense_predecessors():
    model, expected, batches = causal_model("llama"), causal_model("llama"), token_batches(padded=True)
    prune_with_hooks(expected, "model.layers", batches, on_dense=True)
    ms.prune(model, batches, "2:4", update="reconstruct", update_options=CLOSE, inputs_from="dense", tune_steps=0)
    other = causal_model("llama")
    ms.prune(other, batches, "2:4", update="reconstruct", update_options=CLOSE, tune_steps=0)
    name = "model.layers.1.mlp.down_proj.weight"
    torch.testing.assert_close(model.get_parameter(name), expected.get_parameter(name), rtol=1e-3, atol=1e-4)
    assert not torch.allclose(other.get_parameter(name), expected.get_parameter(name), atol=1e-4)


@pytest.mark.parametrize("update", [None, "reconstruct", "admm"])
@pytest.mark.parametrize("kind", list(BLOCKS))
def test_every_weight_obeys_the_pattern_and_masks_are_the_weights_support(kind, update):
    model = causal_model(kind)
    steps = 2 if update else 0
    report = ms.prune(model, token_batches(), "transposable 2:4", update=update, tune_steps=steps, threads=1)
    assert len(report.masks) == {"llama": 14, "gpt2": 8, "opt": 12}[kind]
    for name, mask in report.masks.items():
        layout = "in out" if kind == "gpt2" else None
        assert ms.verify(mask, "transposable 2:4", layout=layout), name
        assert bool(((model.get_parameter(name) != 0) <= mask).all()), name


@pytest.mark.parametrize("update", ["reconstruct", "admm"])
@pytest.mark.parametrize(
    "pattern", ["<=2:4", "transposable 2:4", "block 8x8 50%", "block 8x8 50% nested 2:4", "50%", "channels out 50%",
                "hybrid 8x8 2:4 50%", "4:2:4", "double 2:4"]
)  # fmt: skip
def test_weights_are_updated_under_every_pattern(pattern, update):
    model = causal_model("llama")
    options = {"max_rounds": 6} if update == "admm" else {}
    report = ms.prune(
        model, token_batches(), pattern, update=update, update_options=options, tune_steps=2,
        layers="model.layers.0.mlp.*",
    )  # fmt: skip
    assert len(report.masks) == 3
    for name, mask in report.masks.items():
        assert ms.verify(mask, pattern), name
        assert not bool(model.get_parameter(name)[~mask].any())
    # Rows that are kept whole cannot get better.
    assert all(weight.error <= (1 + 1e-6) * weight.masked_error for weight in report.blocks[0].weights)


@torch.no_grad()
def output_of_last_block(model, batch):
    outputs = []
    hook = model.model.layers[-1].register_forward_hook(lambda module, arguments, output: outputs.append(output))
    model(**batch, use_cache=False)
    hook.remove()
    return outputs[0] if torch.is_tensor(outputs[0]) else outputs[0][0]


def test_errors_of_weights_fall_with_the_update_and_those_of_blocks_are_real():
    model, dense, batches = causal_model("llama"), causal_model("llama").eval(), token_batches(padded=True)
    report = ms.prune(model, batches, "2:4", update="admm", threads=1)
    errors = []
    for batch in batches:
        outputs = [output_of_last_block(each, batch) for each in (model.eval(), dense)]
        kept = batch.get("attention_mask", torch.ones_like(batch["input_ids"])).bool()
        errors.append((outputs[0] - outputs[1])[kept].square().sum(1) / outputs[1][kept].square().sum(1))
    first, second = report.blocks
    assert second.error_after == pytest.approx(float(torch.cat(errors).mean()), rel=1e-3)
    assert first.error_before == 0 < first.error_after < 1
    assert 0 < second.error_before < second.error_after
    for weight in [*first.weights, *second.weights]:
        assert weight.error < weight.masked_error < weight.energy


def test_only_selected_weights_change():
    model, dense = causal_model("llama"), causal_model("llama")
    report = ms.prune(model, token_batches(), "2:4", layers="*.mlp.*", exclude="model.layers.0.*", update=None)
    names = {f"model.layers.1.mlp.{part}_proj.weight" for part in ("gate", "up", "down")}
    assert report.masks.keys() == names
    changed = {
        name for name, parameter in dense.named_parameters() if not torch.equal(parameter, model.get_parameter(name))
    }
    assert changed == names


def test_patterns_differ_by_weight():
    report = ms.prune(causal_model("llama"), token_batches(), ["2:4", "mlp=1:4"], update=None)
    for name, mask in report.masks.items():
        assert float(mask.float().mean()) == (0.25 if ".mlp." in name else 0.5), name


@pytest.mark.parametrize("scores", ["magnitude", "ria", "sparsegpt"])
def test_masks_of_the_first_block_are_those_of_the_scores(scores):
    model, batches, name = causal_model("llama"), token_batches(), "model.layers.0.mlp.down_proj.weight"
    gram, _ = grams_of(model, model.model.layers[0], batches)["mlp.down_proj"]
    weight = model.get_parameter(name).detach().clone()
    values = {
        "magnitude": lambda: ms.magnitude(weight),
        "ria": lambda: ms.ria(weight, gram.diagonal().sqrt()),
        "sparsegpt": lambda: ms.sparsegpt(weight, gram=gram),
    }[scores]()
    report = ms.prune(model, batches, "2:4", scores=scores, update=None)
    assert torch.equal(report.masks[name], ms.solve(values, "2:4").mask)


def test_training_mode_settings_and_gradients_are_as_before():
    model = causal_model("llama").train()
    model.model.layers[0].eval()
    ms.prune(model, token_batches(), "2:4", update=None)
    assert [module.training for module in (model, *model.model.layers)] == [True, False, True]
    assert model.config.use_cache is True
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_the_report_shows_the_blocks_and_is_json():
    import json

    report = ms.prune(causal_model("gpt2"), token_batches(), "2:4", update="reconstruct", tune_steps=2)
    assert str(report).startswith("2 blocks transformer.h of GPT2Block, ")
    assert "transformer.h.1: 4 weight(s), output error " in str(report)
    assert "dense: transformer.wte.weight: outside the blocks" in str(report)
    assert json.loads(json.dumps(report.as_dict()))["blocks"][0]["weights"][0]["tokens"] == [192]


def test_blocks_are_the_list_with_the_most_weights_in_one_class():
    blocks = find_blocks(causal_model("mixtral"))
    assert (blocks.path, blocks.class_name, len(blocks.modules)) == ("model.layers", "MixtralDecoderLayer", 2)
    assert 0.5 < blocks.share < 1
    assert find_blocks(causal_model("llama"), "model.layers").path == "model.layers"


class Mixture(torch.nn.Module):
    """A residual mixture of one expert."""

    def __init__(self):
        super().__init__()
        self.experts = torch.nn.Sequential(torch.nn.Linear(16, 16))

    def forward(self, states):
        return states + self.experts(states)


class NamedMixtures(torch.nn.Module):
    """Blocks in a `Sequential` with names of its own, as in the vision transformers of torchvision."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layers = torch.nn.Sequential(OrderedDict(layer_a=Mixture(), layer_b=Mixture()))

    def forward(self, states, attention_mask=None):
        return self.layers(states)


def test_blocks_have_the_names_that_a_sequential_gives_them():
    states, attention_mask = torch.randn(4, 32, 16), torch.ones(4, 32)
    attention_mask[1, 20:] = 0
    report = ms.prune(NamedMixtures(), [{"states": states, "attention_mask": attention_mask}], "2:4", update=None)
    assert [block.name for block in report.blocks] == ["layers.layer_a", "layers.layer_b"]
    assert list(report.masks) == ["layers.layer_a.experts.0.weight", "layers.layer_b.experts.0.weight"]
    assert [weight.tokens for block in report.blocks for weight in block.weights] == [(116,)] * 2


class Residual(torch.nn.Module):
    """A residual linear layer."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(16, 16)

    def forward(self, states):
        return states + torch.relu(self.layer(states))


class Body(torch.nn.Module):
    """Two blocks in a module that may be compiled."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layers = torch.nn.ModuleList([Residual(), Residual()])

    def forward(self, states):
        for layer in self.layers:
            states = layer(states)
        return states


@pytest.mark.parametrize("compiles", ["in place", "inside"])
def test_models_that_ran_compiled_are_pruned(compiles):
    states = torch.randn(4, 32, 16)
    model = torch.nn.Sequential(OrderedDict(body=Body())).eval()
    compiled_calls = []

    def backend(graph, inputs):
        compiled_calls.append(graph)
        return graph.forward

    if compiles == "in place":
        model.compile(backend=backend)
    else:
        model.body = torch.compile(model.body, backend=backend)
    with torch.no_grad():
        model(states)
    report = ms.prune(model, [states], "2:4", update=None, tune_steps=0)
    assert list(report.masks) == ["body.layers.0.layer.weight", "body.layers.1.layer.weight"]
    assert len(compiled_calls) == 1


class FlexAttention(torch.nn.Module):
    """Attention by torch's `flex_attention`."""

    def __init__(self):
        super().__init__()
        self.query, self.output = torch.nn.Linear(32, 32), torch.nn.Linear(32, 32)

    def forward(self, states):
        heads = self.query(states).unflatten(-1, (2, 16)).transpose(1, 2)
        return states + self.output(flex_attention(heads, heads, heads).transpose(1, 2).flatten(2))


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_blocks_may_use_flex_attention():
    model = torch.nn.Sequential(FlexAttention(), FlexAttention())
    names = [f"{number}.{name}.weight" for number in range(2) for name in ("query", "output")]
    assert sorted(ms.prune(model, [torch.randn(2, 64, 32)], "2:4", update=None).masks) == sorted(names)
