"""Shapes of the linear layers of well-known models, so that their weights are not needed."""

from __future__ import annotations

from .cases import Layer


def _encoder_layers(hidden: int, inner: int, depth: int) -> list[Layer]:
    """Linear layers of `depth` blocks of BERT: four of one shape for attention, then two of the feed-forward part."""
    return [
        Layer("attention", hidden, hidden, 4 * depth),
        Layer("intermediate", inner, hidden, depth),
        Layer("output", hidden, inner, depth),
    ]


def _decoder_layers(hidden: int, key_rows: int, inner: int, depth: int) -> list[Layer]:
    """Linear layers of `depth` blocks of Llama; `key_rows` is less than `hidden`, since query heads share keys."""
    return [
        Layer("q_proj, o_proj", hidden, hidden, 2 * depth),
        Layer("k_proj, v_proj", key_rows, hidden, 2 * depth),
        Layer("gate_proj, up_proj", inner, hidden, 2 * depth),
        Layer("down_proj", hidden, inner, depth),
    ]


MODELS: dict[str, list[Layer]] = {
    "MiniLM": _encoder_layers(384, 1536, 6),
    "BERT-base": _encoder_layers(768, 3072, 12),
    "BERT-large": _encoder_layers(1024, 4096, 24),
    "Llama-3.2-1B": _decoder_layers(2048, 512, 8192, 16),
    "Llama-3.1-8B": _decoder_layers(4096, 1024, 14336, 32),
}
"""Linear layers of the transformer blocks, by model; MiniLM is all-MiniLM-L6-v2."""
