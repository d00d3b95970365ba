"""Transposed weights and default layers: the sparsifier and `calibrate` follow the layouts of `transformers` models."""

import numpy as np
import pytest
import torch
import transformers

import masksmith as ms
from masksmith_client.training import Sparsifier


@pytest.fixture
def gpt2():
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        n_embd=16, n_layer=2, n_head=2, n_positions=8, vocab_size=32, bos_token_id=0, eos_token_id=0
    )
    return transformers.GPT2LMHeadModel(config)


@pytest.mark.parametrize("pattern", ["2:4", "transposable 2:4", "8:2:8", "50%"])
def test_conv1d_is_masked_along_its_input(gpt2, pattern):
    weights = {name: weight.detach().clone() for name, weight in gpt2.named_parameters()}
    sparsifier = Sparsifier(gpt2, pattern, masks=ms.solve, refresh=None)
    assert len(sparsifier.masks) == 8
    for name, mask in sparsifier.masks.items():
        expected = ms.solve(weights[name].abs(), pattern, layout="in out").mask
        assert torch.equal(mask.bool().cpu(), expected), name
    assert set(sparsifier.report().skipped) >= {"lm_head.weight"}


def test_in_a_model_with_blocks_only_blocks_are_masked():
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=32, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2, tie_word_embeddings=False,
    )  # fmt: skip
    model = transformers.LlamaForCausalLM(config)
    sparsifier = Sparsifier(model, "2:4", masks=ms.solve, refresh=None)
    assert len(sparsifier.masks) == 7
    assert all(name.startswith("model.layers.0.") for name in sparsifier.masks)
    assert sparsifier.report().skipped["lm_head.weight"] == "an output head"


def test_a_transposed_convolution_is_masked_along_its_input():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ConvTranspose2d(8, 8, 3), torch.nn.Conv2d(8, 3, 3))
    weight = model[1].weight.detach().clone()
    sparsifier = Sparsifier(model, "2:4", masks=ms.solve, refresh=None)
    expected = ms.solve(weight.abs(), "2:4", layout="in out kernel kernel").mask
    assert torch.equal(sparsifier.masks["1.weight"].bool(), expected)


def test_thresholds_belong_to_the_outputs_of_transposed_weights():
    """A `Conv1D` trains as the linear layer with the transposed weight does."""
    torch.manual_seed(0)
    linear, conv1d = torch.nn.Linear(8, 16, bias=False), transformers.pytorch_utils.Conv1D(16, 8)
    conv1d.weight.data, conv1d.bias.data = linear.weight.detach().T.clone(), torch.zeros(16)
    thresholds, inputs = [], torch.randn(4, 8)
    for layer in (linear, conv1d):
        model = torch.nn.ModuleDict({"layer": layer})
        Sparsifier(model, "2:4", ms.solve, None, "trainable-thresholds strength=0.1", layers="layer")
        threshold = dict(model.named_parameters())["layer.weight_masking.threshold"]
        threshold.data.fill_(0.1)
        layer(inputs).square().mean().backward()
        thresholds.append(threshold)
    assert thresholds[0].shape == (16, 1)
    assert thresholds[1].shape == (1, 16)
    torch.testing.assert_close(thresholds[0].grad, thresholds[1].grad.T)
    torch.testing.assert_close(linear.weight, conv1d.weight.T)


def test_each_expert_has_thresholds_for_its_outputs():
    config = transformers.MixtralConfig(
        vocab_size=32, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2, num_local_experts=4,
    )  # fmt: skip
    model = transformers.MixtralForCausalLM(config)
    sparsifier = Sparsifier(model, "2:4", ms.solve, None, "trainable-thresholds", layers="*.down_proj")
    parameters = dict(model.named_parameters())
    assert list(sparsifier.masks) == ["model.layers.0.mlp.experts.down_proj"]
    assert parameters["model.layers.0.mlp.experts.down_proj_masking.threshold"].shape == (4, 16, 1)


def test_a_head_that_is_named_is_masked_though_the_default_rule_leaves_it_dense():
    model = torch.nn.ModuleDict({"lm_head": torch.nn.Linear(8, 8)})
    sparsifier = Sparsifier(model, "2:4", masks=ms.solve, refresh=None, layers="lm_head")
    assert list(sparsifier.masks) == ["lm_head.weight"]


def test_calibrate_watches_conv1d(gpt2):
    tokens = torch.randint(0, 32, (2, 8))
    inputs = []
    gpt2.transformer.h[0].mlp.c_fc.register_forward_pre_hook(lambda module, arguments: inputs.append(arguments[0]))
    statistics = ms.calibrate(gpt2, [{"input_ids": tokens}], gather=("norms", "gram"), progress=False)
    rows = inputs[0].detach().reshape(-1, 16).double()
    found = statistics["transformer.h.0.mlp.c_fc.weight"]
    np.testing.assert_allclose(found.gram, (rows.T @ rows).numpy(), rtol=1e-4)
    assert "lm_head.weight" in statistics.skipped


def test_calibrate_takes_inputs_by_keyword():
    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.up, self.down = torch.nn.Linear(8, 8), torch.nn.Linear(8, 8)

        def forward(self, inputs):
            return self.down(input=self.up(inputs))

    statistics = ms.calibrate(Model(), [torch.randn(4, 8)], gather=("norms",), progress=False)
    assert statistics["down.weight"].samples == 4
