"""Experts that are stored one by one, and that the loaded model has as fused parameters, are pruned as they are stored.

Oracles: `ms.prune` of the loaded model, whose matrices are the fused ones; the products of the forward pass of a
checkpoint whose every entry has a value of its own; and a model whose experts are separate layers.
"""

import pytest
import torch
import transformers
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from support.language_models import WORDS, prune_command, save_tokenizer, write_text
from support.matrix_products import watch
from support.tiny_models import MODELS
from transformers import conversion_mapping
from transformers.core_model_loading import Interleave, WeightConverter

import masksmith as ms
from masksmith_client.cli.app import run
from masksmith_client.cli.block_prune.calibration_batches import BATCH_WINDOWS

KINDS = {model.name: model for model in MODELS if model.name in ("mixtral", "qwen3_moe", "deepseek_v3")}
MIXTRAL = KINDS["mixtral"]
FIRST = "model.layers.0.block_sparse_moe.experts.0.w1.weight"
TOKENS = 48


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    return write_text(tmp_path_factory.mktemp("text") / "text.txt")


def save(model, folder):
    """Save a model in several files, so that the experts of one parameter are in different ones."""
    torch.manual_seed(0)
    made = model.model_class(model.model_class.config_class(**model.settings))
    made.save_pretrained(folder, max_shard_size="40KB")
    save_tokenizer(folder)
    return folder


def batches_of(text):
    ids = torch.tensor([WORDS.index(word) for word in text.read_text().split()[: 10 * TOKENS]])
    return [{"input_ids": part} for part in ids.reshape(10, TOKENS).split(BATCH_WINDOWS)]


def loaded(folder):
    return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


def tensors_in(folder):
    return {name: tensor for file in folder.glob("model*.safetensors") for name, tensor in load_file(file).items()}


def prune(folder, output, text, *options):
    assert run(prune_command(folder, output, text, *options, tokens=TOKENS)) == 0
    return tensors_in(output)


@pytest.mark.parametrize("kind", KINDS)
def test_the_result_is_that_of_the_loaded_model(kind, text, tmp_path):
    folder, output = save(KINDS[kind], tmp_path / "model"), tmp_path / "out"
    before, after = tensors_in(folder), prune(folder, output, text, "--few-tokens", "without data")
    assert {name: each.shape for name, each in after.items()} == {name: each.shape for name, each in before.items()}
    expected, result = loaded(folder), loaded(output)
    report = ms.prune(expected, batches_of(text), "2:4", update=None, few_tokens="without data")
    assert any(mask.ndim == 3 for mask in report.masks.values())
    for name, parameter in expected.named_parameters():
        assert torch.equal(result.get_parameter(name), parameter), name
    masked = [name for name in before if KINDS[kind].is_masked(name)]
    assert sum("experts" in name for name in masked) > 12
    with safe_open(output / "masks.safetensors", "pt") as masks:
        assert set(masks.keys()) == set(masked)


@pytest.mark.parametrize(
    "kind", [kind if kind == "mixtral" else pytest.param(kind, marks=pytest.mark.slow) for kind in KINDS]
)
def test_every_expert_is_masked_along_the_axis_that_its_products_sum_over(kind, text, tmp_path):
    folder, output = save(KINDS[kind], tmp_path / "model"), tmp_path / "out"
    after = prune(folder, output, text, "--few-tokens", "without data", "--update", "reconstruct")
    KINDS[kind].save(tmp_path / "one_file")
    seen = watch(
        tmp_path / "one_file", tmp_path, KINDS[kind].model_class, [KINDS[kind].batch(seed) for seed in range(3)]
    )
    for name in filter(KINDS[kind].is_masked, after):
        (product,) = seen.products[name]
        (summed,) = product.summed
        groups = after[name].movedim(summed, -1).reshape(-1, 4)
        assert torch.equal((groups != 0).sum(-1), torch.full((len(groups),), 2)), name


class Experts(torch.nn.Module):
    """The experts of a Mixtral block as separate layers."""

    def __init__(self, fused):
        super().__init__()
        halves = [matrix.detach().chunk(2) for matrix in fused.gate_up_proj]
        self.w1 = torch.nn.ModuleList([layer(gate) for gate, _ in halves])
        self.w3 = torch.nn.ModuleList([layer(up) for _, up in halves])
        self.w2 = torch.nn.ModuleList([layer(matrix.detach()) for matrix in fused.down_proj])

    def forward(self, hidden, index, weights):
        result = torch.zeros_like(hidden)
        for number in range(len(self.w1)):
            token, position = torch.where(index == number)
            rows = hidden[token]
            rows = self.w2[number](torch.nn.functional.silu(self.w1[number](rows)) * self.w3[number](rows))
            result.index_add_(0, token, rows * weights[token, position, None])
        return result


def layer(weight):
    linear = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    linear.weight.data.copy_(weight)
    return linear


def assert_close(ours, theirs):
    assert torch.equal(ours != 0, theirs != 0)
    torch.testing.assert_close(ours, theirs.detach(), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("order", ["together", "sequential"])
def test_updates_are_those_of_separate_layers(order, text, tmp_path):
    folder = save(MIXTRAL, tmp_path / "model")
    after = prune(folder, tmp_path / "out", text, "--update", "reconstruct", "--order", order, "--tune-steps", "0")
    expected = loaded(folder)
    for block in expected.model.layers:
        block.mlp.experts = Experts(block.mlp.experts)
    ms.prune(expected, batches_of(text), "2:4", update="reconstruct", order=order, tune_steps=0)
    for number, block in enumerate(expected.model.layers):
        for expert in range(4):
            for kind in ("w1", "w2", "w3"):
                ours = after[f"model.layers.{number}.block_sparse_moe.experts.{expert}.{kind}.weight"]
                assert_close(ours, getattr(block.mlp.experts, kind)[expert].weight)


def test_tuning_is_that_of_the_loaded_model(text, tmp_path):
    folder, output = save(MIXTRAL, tmp_path / "model"), tmp_path / "out"
    prune(folder, output, text, "--update", "reconstruct", "--tune-steps", "4")
    expected, result = loaded(folder), loaded(output)
    report = ms.prune(expected, batches_of(text), "2:4", update="reconstruct", tune_steps=4)
    assert all(block.tuning.error_after < block.tuning.error_before for block in report.blocks)
    for name in report.masks:
        assert_close(result.get_parameter(name), expected.get_parameter(name))


def test_single_experts_may_stay_dense_and_have_patterns_of_their_own(text, tmp_path):
    folder, output = save(MIXTRAL, tmp_path / "model"), tmp_path / "out"
    options = [
        "--exclude",
        "*experts.1.*",
        "-p",
        "w2=transposable 8:16",
        "--update",
        "reconstruct",
        "--tune-steps",
        "2",
    ]
    before, after = tensors_in(folder), prune(folder, output, text, *options)
    for name in filter(MIXTRAL.is_masked, before):
        is_dense = ".experts.1." in name
        assert torch.equal(after[name], before[name]) == is_dense, name
        pattern = "transposable 8:16" if ".w2." in name else "2:4"
        assert is_dense or ms.verify(after[name] != 0, pattern), name


def test_a_missing_expert_is_named_before_anything_is_written(text, tmp_path, capsys):
    MIXTRAL.save(tmp_path / "model")
    save_tokenizer(tmp_path / "model")
    tensors = load_file(tmp_path / "model" / "model.safetensors")
    save_file({name: tensor for name, tensor in tensors.items() if ".0.block_sparse_moe.experts.3." not in name},
              tmp_path / "model" / "model.safetensors", {"format": "pt"})  # fmt: skip
    assert run(prune_command(tmp_path / "model", tmp_path / "out", text)) == 2
    printed = " ".join(capsys.readouterr().err.split())
    shapes = "has the shape [4, 96, 32] in the model, but [3, 96, 32]"
    assert f"{shapes} when made of 6 tensor(s) such as {FIRST!r}" in printed
    assert not (tmp_path / "out").exists()


def test_a_conversion_that_cannot_be_inverted_is_refused_by_name(text, tmp_path, monkeypatch, capsys):
    folder, mapping = save(MIXTRAL, tmp_path / "model"), conversion_mapping.get_model_conversion_mapping

    def interleaving(*arguments, **options):
        steps = mapping(*arguments, **options)
        for step in steps:
            if isinstance(step, WeightConverter) and len(step.source_patterns) == 2:
                step.operations.append(Interleave(dim=1))
        return steps

    monkeypatch.setattr(conversion_mapping, "get_model_conversion_mapping", interleaving)
    assert run(prune_command(folder, tmp_path / "out", text)) == 2
    printed = " ".join(capsys.readouterr().err.split())
    assert f"{FIRST!r} is converted to 'model.layers.0.mlp.experts.gate_up_proj' when the model is loaded" in printed
    assert "in a way that cannot be inverted exactly; exclude it, or load the model and prune it with" in printed
    assert not (tmp_path / "out").exists()
    prune(folder, tmp_path / "out", text, "--exclude", "*.w1.*", "--exclude", "*.w3.*")
