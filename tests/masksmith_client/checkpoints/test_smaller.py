"""Configs of smaller models: all widths are divided by one factor that leaves at least two heads."""

import pytest
import transformers

from masksmith_client.checkpoints.tracing.smaller import smaller

CONFIGS = {
    "gpt2": (transformers.GPT2Config, {"n_head": 8, "n_embd": 512}, ("n_head", "n_embd")),
    "bloom": (transformers.BloomConfig, {"n_head": 8, "hidden_size": 512}, ("n_head", "hidden_size")),
    "llama": (
        transformers.LlamaConfig,
        {"num_attention_heads": 8, "num_key_value_heads": 4, "hidden_size": 512, "intermediate_size": 1024},
        ("num_attention_heads", "hidden_size"),
    ),
}


@pytest.mark.parametrize("kind", CONFIGS)
def test_two_heads_of_the_same_size_are_left(kind):
    make, settings, (heads, width) = CONFIGS[kind]
    config = make(**settings)
    reduced = smaller(config)
    assert getattr(reduced, heads) == 2
    assert getattr(reduced, width) // 2 == getattr(config, width) // getattr(config, heads)
