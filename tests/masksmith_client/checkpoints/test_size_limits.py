"""A config cannot make the client build a model that is far larger than the checkpoint."""

import json

import pytest
import transformers

from masksmith_client.checkpoints.traced import trace
from masksmith_client.checkpoints.tracing import size_limits
from masksmith_client.checkpoints.tracing.size_limits import excessive_count, limited_modules

SIZES = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2, "num_key_value_heads": 2}
LLAMA = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], **SIZES}
MIXTRAL = {"model_type": "mixtral", "architectures": ["MixtralForCausalLM"], **SIZES, "num_hidden_layers": 1}
SHAPES = {"model.layers.0.mlp.up_proj.weight": (32, 16)}


def notes(folder, config):
    (folder / "config.json").write_text(json.dumps(config))
    traced = trace(folder, SHAPES)
    assert not traced.layouts
    return traced.notes


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (LLAMA | {"num_hidden_layers": 10**9}, "config.json says num_hidden_layers=1000000000"),
        (MIXTRAL | {"num_local_experts": 10**9}, "config.json says num_local_experts=1000000000"),
        (MIXTRAL | {"num_local_experts": 10**6}, "2000000 matrices in stacks such as 'model.layers.0.mlp.experts"),
    ],
)
def test_a_model_much_larger_than_the_checkpoint_is_not_built(tmp_path, config, expected):
    (note,) = notes(tmp_path, config)
    assert expected in note
    assert note.endswith("so names and shapes decide")


def test_an_input_that_is_too_large_is_not_made(tmp_path):
    config = {"model_type": "convnext", "architectures": ["ConvNextModel"], "hidden_sizes": [8, 8, 8, 8]}
    (tmp_path / "config.json").write_text(json.dumps(config | {"depths": [1, 1, 1, 1], "image_size": 10**10}))
    traced = trace(tmp_path, {"embeddings.patch_embeddings.weight": (8, 3, 4, 4)})
    assert "by config.json an input has the shape [2, 3, 10000000000, 10000000000]" in traced.notes[0]
    assert "embeddings.patch_embeddings.weight" in traced.layouts  # from the class of the layer


def test_no_more_modules_are_built_than_fit_the_checkpoint(tmp_path, monkeypatch):
    monkeypatch.setattr(size_limits, "BASE_MODULES", 200)
    (note,) = notes(tmp_path, LLAMA | {"num_hidden_layers": 1000})
    assert "the config's model has more than 210 modules, and the checkpoint has 1 tensor(s)" in note


def test_modules_are_counted_within_the_context_only(monkeypatch):
    monkeypatch.setattr(size_limits, "BASE_MODULES", 10)
    config = transformers.LlamaConfig(**SIZES, vocab_size=16, num_hidden_layers=1)
    with pytest.raises(ValueError, match="more than 10 modules"), limited_modules(0):
        transformers.LlamaForCausalLM(config)
    transformers.LlamaForCausalLM(config)


@pytest.mark.parametrize(
    ("config", "name"),
    [
        ({"text_config": {"num_hidden_layers": 10**7}}, "num_hidden_layers"),
        ({"depths": [2, 10**7]}, "depths"),
        ({"n_layer": 10**7}, "n_layer"),
        ({"block_size": 10**7, "max_position_embeddings": 10**7, "num_layers": True, "layers": None}, None),
    ],
)
def test_counts_are_recognised_by_their_names(config, name):
    message = excessive_count(config)
    assert message is None if name is None else name in message
