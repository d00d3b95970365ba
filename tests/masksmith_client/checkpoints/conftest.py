"""Tiny random models of transformers, saved as their users find them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

SMALL: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
}
EXPERTS = SMALL | {"num_local_experts": 2, "num_experts_per_tok": 1}
BERT = {name: value for name, value in SMALL.items() if name != "num_key_value_heads"}
GPT2 = {
    "vocab_size": 64,
    "n_embd": 32,
    "n_layer": 2,
    "n_head": 2,
    "n_positions": 16,
    "eos_token_id": 1,
    "bos_token_id": 1,
}
T5 = {"vocab_size": 64, "d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 2, "num_heads": 2}

MODELS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "llama-tied": ("LlamaForCausalLM", "LlamaConfig", SMALL | {"tie_word_embeddings": True}),
    "llama": ("LlamaForCausalLM", "LlamaConfig", SMALL | {"tie_word_embeddings": False}),
    "gpt2": ("GPT2LMHeadModel", "GPT2Config", GPT2),
    "mixtral": ("MixtralForCausalLM", "MixtralConfig", EXPERTS),
    "gpt_oss": ("GptOssForCausalLM", "GptOssConfig", EXPERTS | {"head_dim": 16}),
    "bert": ("BertForMaskedLM", "BertConfig", BERT),
    "t5": ("T5ForConditionalGeneration", "T5Config", T5),
}


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Save a tiny model of this name, once, in several files."""
    folders: dict[str, Path] = {}

    def save(name: str) -> Path:
        if name not in folders:
            model_class, config_class, options = MODELS[name]
            torch.manual_seed(0)
            folders[name] = tmp_path_factory.mktemp(name) / "model"
            model = getattr(transformers, model_class)(getattr(transformers, config_class)(**options))
            dtype = torch.bfloat16 if name == "llama" else torch.float32
            model.to(dtype).save_pretrained(folders[name], max_shard_size="30KB")
            (folders[name] / "tokenizer.json").write_text("{}")
            (folders[name] / "chat_template.jinja").write_text("{{ messages }}")
        return folders[name]

    return save
