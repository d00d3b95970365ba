"""Models and texts that cannot be pruned block by block: one line that names what is wrong, and nothing is written."""

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.language_models import prune_command, save_llama, write_text

from masksmith_client.cli.app import run


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    return write_text(tmp_path_factory.mktemp("text") / "text.txt")


@pytest.fixture
def refused(text, tmp_path, capsys):
    def check(model, *messages, **options):
        arguments = prune_command(model, tmp_path / "out", text, *options.pop("extra", ()), **options)
        assert run(arguments) == 2
        printed = " ".join(capsys.readouterr().err.split())
        for message in messages:
            assert message in printed
        assert "Traceback" not in printed
        assert not (tmp_path / "out").exists()

    return check


def changed(model, name, change):
    """Change a tensor of a saved model."""
    file = model / "model.safetensors"
    tensors = load_file(file)
    change(tensors, name)
    save_file(tensors, file, {"format": "pt"})
    return model


def test_a_model_of_one_block(refused, tmp_path):
    refused(save_llama(tmp_path / "model", num_hidden_layers=1), "the model has no list of blocks")


def test_windows_longer_than_the_model_takes(refused, tmp_path):
    model = save_llama(tmp_path / "model", max_position_embeddings=32)
    refused(model, "windows of 64 tokens are longer than the model's maximum of 32; lower --calibration-tokens")


def test_more_tokens_than_the_model_knows(refused, tmp_path):
    model = save_llama(tmp_path / "model", vocab_size=60)
    refused(model, "produces token 63, but the model has 60 embeddings")


def test_too_few_tokens_name_the_commands_own_options(refused, tmp_path):
    refused(
        save_llama(tmp_path / "model"),
        "model.layers.0.self_attn.q_proj.weight:", "it got 16 token(s), fewer than --min-tokens 64",
        "give more --calibration-windows, exclude the weight, or --few-tokens 'without data'", windows=1, tokens=16,
    )  # fmt: skip


def test_nan_in_activations_names_block_layer_and_batch(refused, tmp_path):
    model = changed(save_llama(tmp_path / "model"), "model.layers.0.input_layernorm.weight", lambda tensors, name:
                    tensors.update({name: torch.full_like(tensors[name], float("nan"))}))  # fmt: skip
    refused(model, "model.layers.0.self_attn.q_proj.weight: its inputs hold NaN or infinity in batch 0")


def test_inputs_that_are_always_zero_name_the_layer(refused, tmp_path):
    model = changed(save_llama(tmp_path / "model"), "model.layers.0.post_attention_layernorm.weight",
                    lambda tensors, name: tensors[name].zero_())  # fmt: skip
    refused(model, "model.layers.0.mlp.gate_proj.weight: all inputs of its 640 token(s) are 0")


def test_a_tensor_that_the_checkpoint_does_not_have(refused, tmp_path):
    model = changed(save_llama(tmp_path / "model"), "model.layers.1.input_layernorm.weight",
                    lambda tensors, name: tensors.pop(name))  # fmt: skip
    refused(model, "has no tensor for the model's parameter 'model.layers.1.input_layernorm.weight'")


def test_tuning_without_an_update(refused, tmp_path):
    model = save_llama(tmp_path / "model")
    refused(model, "--tune-steps needs --update", extra=("--tune-steps", "3"))


def test_a_rate_that_is_not_positive(refused, tmp_path):
    model, extra = save_llama(tmp_path / "model"), ("--update", "admm", "--tune-steps", "3", "--tune-rate", "0")
    refused(model, "--tune-rate 0.0 must be positive and finite", extra=extra)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--order", "sequential"], "--order need(s) --calibration-text"),
        (["--calibration-windows", "64"], "--calibration-windows need(s) --calibration-text"),
        (
            ["--calibration-tokens", "8", "--calibration-windows", "1"],
            "--calibration-windows, --calibration-tokens need(s) --calibration-text",
        ),
    ],
)
def test_options_of_the_text_and_of_blocks_without_a_text(tmp_path, capsys, options, named):
    model = save_llama(tmp_path / "model")
    assert run(["prune", str(model), "-p", "2:4", "--local", "-o", str(tmp_path / "out"), *options]) == 2
    assert named in " ".join(capsys.readouterr().err.split())
