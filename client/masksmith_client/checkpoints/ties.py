"""Tied tensors: one parameter of the model under several names, of which a checkpoint often stores one."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from masksmith.layouts import in_block
from masksmith_client._errors import InputError
from masksmith_wire.headers import DTYPE_BITS

from .tensors import Tensor, read_range

_EMBEDDING = re.compile(r"(?:^|\.)(?:embed_tokens|wte|word_embeddings|embed_in|shared|tok_embeddings)\.weight$")
_HEADS = ("lm_head.weight", "embed_out.weight", "output.weight", "cls.predictions.decoder.weight")
_SAMPLE_BYTES = 64


def absent_ties(tensors: Mapping[str, Tensor], config: Mapping[str, Any] | None) -> dict[str, str]:
    """Return names that the model has and the checkpoint does not store, with the tensor that each is tied to.

    `save_pretrained` leaves out output heads that are tied to the embedding, and further embeddings.
    """
    if (config or {}).get("tie_word_embeddings") is False:
        return {}
    embeddings = [name for name in tensors if _EMBEDDING.search(name)]
    if len(embeddings) != 1:
        return {}
    (embedding,) = embeddings
    absent = [name for name in _HEADS if name not in tensors]
    if re.search(r"(?:^|\.)shared\.weight$", embedding):
        root = embedding.removesuffix("shared.weight")
        absent += [f"{root}{side}.embed_tokens.weight" for side in ("encoder", "decoder")]
    return {name: embedding for name in absent if name not in tensors}


def tied_by_config(
    absent: Mapping[str, str], tensors: Mapping[str, Tensor], config: Mapping[str, Any] | None
) -> dict[str, str]:
    """Return those absent names that the config says are tied: one output head, and further embeddings."""
    if not (config or {}).get("tie_word_embeddings"):
        return {}
    is_encoder = any(name.startswith("cls.") for name in tensors)
    head = _HEADS[3] if is_encoder else _HEADS[1] if (config or {}).get("model_type") == "gpt_neox" else _HEADS[0]
    return {name: tensor for name, tensor in absent.items() if name == head or name not in _HEADS}


def stored_ties(tensors: Sequence[Tensor]) -> dict[str, str]:
    """Return names of tensors that repeat an earlier one byte by byte, with that one's name.

    Matrices whose entries are all the same are no tie, as they may just have the same initial value. Neither are equal
    matrices of two blocks: copies that a larger model was initialized with, which training will change separately.

    Raises:
        InputError: If a file cannot be read.
    """
    alike: dict[tuple[Any, ...], list[Tensor]] = {}
    ties: dict[str, str] = {}
    by_shape: dict[tuple[Any, ...], list[Tensor]] = {}
    for tensor in tensors:
        if len(tensor.shape) >= 2 and tensor.data_bytes:
            by_shape.setdefault((tensor.dtype, tensor.shape), []).append(tensor)
    for shape, group in by_shape.items():
        for tensor in group if len(group) > 1 else ():
            firsts = alike.setdefault((shape, _sample(tensor)), [])
            first = next((first for first in firsts if _may_be_tied(first, tensor) and _are_equal(first, tensor)), None)
            if first is None:
                firsts.append(tensor)
            else:
                ties[tensor.name] = first.name
    return ties


def _sample(tensor: Tensor) -> bytes:
    starts = (tensor.start, (tensor.start + tensor.stop) // 2, max(tensor.start, tensor.stop - _SAMPLE_BYTES))
    try:
        with tensor.file.open("rb", buffering=0) as file:
            return b"".join(
                b"".join(read_range(file, start, min(start + _SAMPLE_BYTES, tensor.stop), f"{tensor.file} ended"))
                for start in starts
            )
    except OSError as error:
        raise InputError(f"{tensor.file} cannot be read: {error.strerror}") from None


def _may_be_tied(first: Tensor, second: Tensor) -> bool:
    return not (in_block(first.name) and in_block(second.name))


def _are_equal(first: Tensor, second: Tensor) -> bool:
    item_bytes, is_constant, start = max(1, DTYPE_BITS[first.dtype] // 8), True, b""
    for piece, other in zip(first.pieces(), second.pieces(), strict=True):
        if piece != other:
            return False
        start = start or piece[:item_bytes]
        is_constant = is_constant and piece == start * (len(piece) // item_bytes)
    return not is_constant
