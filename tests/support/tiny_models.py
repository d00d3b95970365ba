"""Tiny random models of `transformers`, one of each class that checkpoints are tested with, and what is masked."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import safe_open

TEXT = {
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}
HEADS = {**TEXT, "head_dim": 8}
MOE = {"num_experts_per_tok": 2}
FULL_ATTENTION = {name: value for name, value in TEXT.items() if name != "num_key_value_heads"}
ATTENTION = r"self_attn\.[qkvo]_proj"
MLP = r"mlp\.(gate|up|down)_proj"
LLAMA = rf"model\.layers\.\d\.({ATTENTION}|{MLP})\.weight"


@dataclass(frozen=True)
class TinyModel:
    """A class of models.

    Attributes:
        name: Its name in the ids of tests.
        class_name: Its class in `transformers`.
        settings: Arguments of its config.
        masked: What is masked of it by default: a regular expression for whole names.
        tied: The stored tensor that the output head is, if it is one.
        inputs: What it takes.
    """

    name: str
    class_name: str
    settings: dict[str, Any]
    masked: str
    tied: str | None = None
    inputs: str = "text"

    @property
    def model_class(self) -> Any:
        return getattr(transformers, self.class_name)

    def save(self, directory: Path) -> None:
        torch.manual_seed(0)
        self.model_class(self.model_class.config_class(**self.settings)).save_pretrained(directory)

    def is_masked(self, name: str) -> bool:
        return re.fullmatch(self.masked, name) is not None

    def batch(self, seed: int) -> dict[str, torch.Tensor]:
        torch.manual_seed(seed)
        return INPUTS[self.inputs]()


def tokens() -> torch.Tensor:
    return torch.randint(3, 96, (3, 19))


INPUTS: dict[str, Callable[[], dict[str, torch.Tensor]]] = {
    "text": lambda: {"input_ids": tokens()},
    "texts": lambda: {"input_ids": tokens(), "decoder_input_ids": tokens()},
    "image": lambda: {"pixel_values": torch.randn(3, 3, 32, 32)},
    "speech": lambda: {"input_features": torch.randn(3, 16, 40), "decoder_input_ids": tokens()},
}
WHISPER = {
    "vocab_size": 96,
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "num_mel_bins": 16,
    "max_source_positions": 20,
    "max_target_positions": 32,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": 1,
    "suppress_tokens": None,
    "begin_suppress_tokens": None,
}
DEEPSEEK = {
    **FULL_ATTENTION,
    "num_key_value_heads": 4,
    "moe_intermediate_size": 24,
    "n_routed_experts": 4,
    "n_group": 2,
    "topk_group": 1,
    "q_lora_rank": 24,
    "kv_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 8,
    "first_k_dense_replace": 1,
    **MOE,
}
FALCON = {"vocab_size": 96, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
OPT = {**FULL_ATTENTION, "ffn_dim": 48, "word_embed_proj_dim": 24}
FUSED_QKV = r"(\w+\.)?(query_key_value|dense)|mlp\.dense_(h_to_4h|4h_to_h)"
T5_BLOCK = r"(Self|EncDec)Attention\.[qkvo]|DenseReluDense\.w[io]"
QWEN3_MOE = {**HEADS, "num_experts": 4, "moe_intermediate_size": 24, **MOE}
GPT_OSS = {**HEADS, "num_local_experts": 4, **MOE}

MODELS = [
    TinyModel("llama", "LlamaForCausalLM", TEXT, LLAMA),
    TinyModel(
        "llama_tied", "LlamaForCausalLM", {**TEXT, "tie_word_embeddings": True}, LLAMA, "model.embed_tokens.weight"
    ),
    TinyModel("mistral", "MistralForCausalLM", TEXT, LLAMA),
    TinyModel("qwen3", "Qwen3ForCausalLM", HEADS, LLAMA),
    TinyModel(
        "phi3",
        "Phi3ForCausalLM",
        {**TEXT, "pad_token_id": 0},
        r"model\.layers\.\d\.(self_attn\.(qkv|o)_proj|mlp\.(gate_up|down)_proj)\.weight",
    ),
    TinyModel("gemma2", "Gemma2ForCausalLM", HEADS, LLAMA, "model.embed_tokens.weight"),
    TinyModel(
        "mixtral",
        "MixtralForCausalLM",
        {**TEXT, "num_local_experts": 4, **MOE},
        rf"model\.layers\.\d\.({ATTENTION}|block_sparse_moe\.experts\.\d\.w[123])\.weight",
    ),
    TinyModel(
        "qwen3_moe",
        "Qwen3MoeForCausalLM",
        QWEN3_MOE,
        rf"model\.layers\.\d\.({ATTENTION}|mlp\.experts\.\d\.(gate|up|down)_proj)\.weight",
    ),
    TinyModel(
        "gpt_oss",
        "GptOssForCausalLM",
        GPT_OSS,
        rf"model\.layers\.\d\.({ATTENTION}\.weight|mlp\.experts\.(gate_up|down)_proj)",
    ),
    TinyModel(
        "deepseek_v3",
        "DeepseekV3ForCausalLM",
        DEEPSEEK,
        r"model\.layers\.\d\.(self_attn\.(q_a|q_b|kv_a|kv_b|o)_proj(_with_mqa)?|mlp\.(experts\.\d\.|shared_experts\.)?"
        r"(gate|up|down)_proj)\.weight",
    ),
    TinyModel(
        "gpt2",
        "GPT2LMHeadModel",
        {"vocab_size": 96, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64},
        r"transformer\.h\.\d\.(attn\.c_(attn|proj)|mlp\.c_(fc|proj))\.weight",
        "transformer.wte.weight",
    ),
    TinyModel("gpt_neox", "GPTNeoXForCausalLM", FULL_ATTENTION, rf"gpt_neox\.layers\.\d\.({FUSED_QKV})\.weight"),
    TinyModel(
        "falcon",
        "FalconForCausalLM",
        FALCON,
        rf"transformer\.h\.\d\.({FUSED_QKV})\.weight",
        "transformer.word_embeddings.weight",
    ),
    TinyModel(
        "bloom",
        "BloomForCausalLM",
        {"vocab_size": 96, "hidden_size": 32, "n_layer": 2, "n_head": 4},
        rf"transformer\.h\.\d\.({FUSED_QKV})\.weight",
        "transformer.word_embeddings.weight",
    ),
    TinyModel(
        "opt",
        "OPTForCausalLM",
        OPT,
        r"model\.decoder\.layers\.\d\.(self_attn\.(q|k|v|out)_proj|fc[12])\.weight",
        "model.decoder.embed_tokens.weight",
    ),
    TinyModel(
        "bert",
        "BertForMaskedLM",
        FULL_ATTENTION,
        r"bert\.encoder\.layer\.\d\.(attention\.(self\.(query|key|value)|output\.dense)|(intermediate|output)\.dense)\.weight",
        "bert.embeddings.word_embeddings.weight",
    ),
    TinyModel(
        "vit",
        "ViTForImageClassification",
        {**FULL_ATTENTION, "image_size": 32, "patch_size": 8, "num_labels": 5},
        r"vit\.encoder\.layer\.\d\.(attention\.(attention\.(query|key|value)|output\.dense)|(intermediate|output)\.dense)\.weight",
        inputs="image",
    ),
    TinyModel(
        "mamba",
        "MambaForCausalLM",
        {"vocab_size": 96, "hidden_size": 32, "num_hidden_layers": 2, "state_size": 8, "time_step_rank": 4},
        r"backbone\.layers\.\d\.mixer\.(in|x|dt|out)_proj\.weight",
        "backbone.embeddings.weight",
    ),
    TinyModel(
        "t5",
        "T5ForConditionalGeneration",
        {"vocab_size": 96, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4},
        rf"(en|de)coder\.block\.\d\.layer\.\d\.({T5_BLOCK})\.weight",
        "shared.weight",
        "texts",
    ),
    TinyModel(
        "whisper",
        "WhisperForConditionalGeneration",
        WHISPER,
        r"model\.(en|de)coder\.layers\.\d\.((self|encoder)_attn\.(q|k|v|out)_proj|fc[12])\.weight",
        "model.decoder.embed_tokens.weight",
        "speech",
    ),
]


def shapes_in(directory: Path) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the tensors of a directory's only file."""
    (file,) = directory.glob("*.safetensors")
    with safe_open(file, "np") as tensors:
        return {name: tuple(tensors.get_slice(name).get_shape()) for name in tensors.keys()}  # noqa: SIM118
