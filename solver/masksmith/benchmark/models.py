"""Shapes of the linear layers of well-known models, so that their weights are not needed."""

from __future__ import annotations

from .cases import Layer


def encoder(hidden: int, inner: int, depth: int) -> list[Layer]:
    """Shapes of a plain transformer: query, key, value and output alike, then two layers of the feed-forward part."""
    return [
        Layer("attention", hidden, hidden, 4 * depth),
        Layer("intermediate", inner, hidden, depth),
        Layer("output", hidden, inner, depth),
    ]


def decoder(hidden: int, shared: int, inner: int, depth: int) -> list[Layer]:
    """Shapes of a Llama: keys and values of `shared` rows, and a gated feed-forward part."""
    return [
        Layer("q_proj, o_proj", hidden, hidden, 2 * depth),
        Layer("k_proj, v_proj", shared, hidden, 2 * depth),
        Layer("gate_proj, up_proj", inner, hidden, 2 * depth),
        Layer("down_proj", hidden, inner, depth),
    ]


MODELS: dict[str, list[Layer]] = {
    "MiniLM": encoder(384, 1536, 6),
    "BERT-base": encoder(768, 3072, 12),
    "BERT-large": encoder(1024, 4096, 24),
    "Llama-3.2-1B": decoder(2048, 512, 8192, 16),
    "Llama-3.1-8B": decoder(4096, 1024, 14336, 32),
}
"""Linear layers by model, without embeddings and heads; MiniLM is all-MiniLM-L6-v2."""
