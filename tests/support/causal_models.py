"""Tiny causal language models of transformers with random weights, and batches for them."""

import torch
import transformers

from support.tiny_models import TEXT

VOCABULARY = TEXT["vocab_size"]
_LLAMA = {**TEXT, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": None}
_EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2}


def causal_model(kind):
    """Make a model with two blocks; `kind` is llama, gpt2, opt, mixtral or gpt_oss."""
    torch.manual_seed(0)
    return getattr(transformers, _CLASSES[kind][0])(_CLASSES[kind][1]())


def token_batches(padded=False):
    """Make two batches of token ids, with padding on the left and on the right."""
    generator = torch.Generator().manual_seed(1)
    first, second = (torch.randint(0, VOCABULARY, (4, 24), generator=generator) for _ in range(2))
    mask = torch.ones_like(first)
    if padded:
        mask[0, :10], mask[1, 20:] = 0, 0
    return [{"input_ids": first, "attention_mask": mask}, {"input_ids": second}]


def _gpt2():
    ends = {"bos_token_id": 0, "eos_token_id": 1}
    return transformers.GPT2Config(vocab_size=VOCABULARY, n_embd=32, n_layer=2, n_head=4, n_positions=64, **ends)


def _opt():
    sizes = {"hidden_size": 32, "ffn_dim": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    return transformers.OPTConfig(
        vocab_size=VOCABULARY, word_embed_proj_dim=32, max_position_embeddings=64, layerdrop=0.0, **sizes
    )


def _gpt_oss():
    layers = {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 8, "head_dim": 8}
    rope = {"rope_type": "default", "rope_theta": 10000.0}
    return transformers.GptOssConfig(**_LLAMA, **_EXPERTS, **layers, rope_parameters=rope)


_CLASSES = {
    "llama": ("LlamaForCausalLM", lambda: transformers.LlamaConfig(**_LLAMA)),
    "gpt2": ("GPT2LMHeadModel", _gpt2),
    "opt": ("OPTForCausalLM", _opt),
    "mixtral": ("MixtralForCausalLM", lambda: transformers.MixtralConfig(**_LLAMA, **_EXPERTS)),
    "gpt_oss": ("GptOssForCausalLM", _gpt_oss),
}
