"""Order of tensors as people list them: embeddings, blocks in the order of their numbers, output heads."""

from __future__ import annotations

import re

_FIRST = re.compile(r"(?:^|\.)(?:shared|wte|wpe|\w*embed\w*|\w*embd\w*)(?:\.|$)", re.IGNORECASE)
_LAST = re.compile(r"^(?:lm_head|embed_out|score|classifier|qa_outputs|cls|head)(?:\.|$)")
_IN_BLOCK = re.compile(r"\.\d+\.")
_PIECES = re.compile(r"(\d+)")

_MAX_DIGITS = 18
"""More digits than this are compared as text, not as a number, since Python refuses to convert thousands of digits."""

Key = tuple[int, tuple[tuple[int, int, str], ...]]
"""Sort key of a name: the rank of its group, and the keys of the parts of the name."""


def natural_key(name: str) -> Key:
    """Return the key that a tensor's name is sorted by: numbers by value, encoders before decoders."""
    # "encoder~" sorts after every other name that begins with "encoder".
    pieces = _PIECES.split(name.replace("decoder", "encoder~"))
    return _rank(name), tuple(_piece_key(piece) for piece in pieces if piece)


def _piece_key(piece: str) -> tuple[int, int, str]:
    """Return the key of a part of a name: numbers come before texts, and are compared by value.

    More than `_MAX_DIGITS` digits are a text.
    """
    return (0, int(piece), piece) if piece.isdecimal() and len(piece) <= _MAX_DIGITS else (1, 0, piece)


def _rank(name: str) -> int:
    """Return 0 for embeddings outside the blocks, 2 for output heads, and 1 for all other tensors."""
    if _LAST.search(name):
        return 2
    return 0 if _FIRST.search(name) and not _IN_BLOCK.search(name) else 1
