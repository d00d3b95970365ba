"""Tied tensors: one parameter of the model under several names; a checkpoint often stores only one of them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from blake3 import blake3

from masksmith.layouts import in_block
from masksmith_client._errors import InputError
from masksmith_wire.headers import DTYPE_BITS

from .tensors import Tensor, read_range

_EMBEDDING = re.compile(r"(?:^|\.)(?:embed_tokens|wte|word_embeddings|embed_in|shared|tok_embeddings)\.weight$")
_HEAD, _GPT_NEOX_HEAD, _BERT_HEAD = "lm_head.weight", "embed_out.weight", "cls.predictions.decoder.weight"
_HEADS = (_HEAD, _GPT_NEOX_HEAD, "output.weight", _BERT_HEAD)
_SAMPLE_BYTES = 64


def absent_ties(tensors: Mapping[str, Tensor], config: Mapping[str, Any] | None) -> dict[str, str]:
    """Map each name that the model may have, but the checkpoint does not store, to the name of the embedding.

    `save_pretrained` leaves out an output head, and further embeddings, if they are tied to the stored embedding. The
    result is empty if the config says that nothing is tied, or if the checkpoint does not store exactly one embedding.
    """
    if (config or {}).get("tie_word_embeddings") is False:
        return {}
    embeddings = [name for name in tensors if _EMBEDDING.search(name)]
    if len(embeddings) != 1:
        return {}
    (embedding,) = embeddings
    names = list(_HEADS)
    if re.search(r"(?:^|\.)shared\.weight$", embedding):
        root = embedding.removesuffix("shared.weight")
        names += [f"{root}{side}.embed_tokens.weight" for side in ("encoder", "decoder")]
    return {name: embedding for name in names if name not in tensors}


def declared_ties(tensors: Mapping[str, Tensor], metadata: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """Map each name that is not stored to the name of the stored tensor that a file's `__metadata__` gives for it.

    `safetensors.torch.save_model` stores a shared parameter under one name, and its other names in `__metadata__`.
    """
    pairs = [pair for members in metadata for pair in members.items()]
    return {name: target for name, target in pairs if name not in tensors and target in tensors}


def tied_by_config(
    ties: Mapping[str, str], tensors: Mapping[str, Tensor], config: Mapping[str, Any] | None
) -> dict[str, str]:
    """Return those of `ties` that are certain: all tied embeddings, and the one output head of this kind of model.

    The result is empty unless the config sets `tie_word_embeddings`.

    Args:
        ties: The ties that a model may have, see `absent_ties`.
        tensors: All tensors of the checkpoint, by name.
        config: The model's `config.json`; None if it has none.
    """
    if not (config or {}).get("tie_word_embeddings"):
        return {}
    if any(name.startswith("cls.") for name in tensors):
        head = _BERT_HEAD
    elif (config or {}).get("model_type") == "gpt_neox":
        head = _GPT_NEOX_HEAD
    else:
        head = _HEAD
    return {name: target for name, target in ties.items() if name == head or name not in _HEADS}


def stored_ties(tensors: Sequence[Tensor]) -> dict[str, str]:
    """Map the name of each tensor that repeats an earlier one byte by byte to the name of the earlier one.

    Only tensors of two or more dimensions are compared. Equal tensors are not tied if all entries are the same number,
    which may be their initial value, or if both are in blocks: a larger model may have been initialized with copies of
    blocks, which training changes separately.

    Raises:
        InputError: If a file cannot be read, or became shorter.
    """
    ties: dict[str, str] = {}
    by_shape: dict[tuple[Any, ...], list[Tensor]] = {}
    for tensor in tensors:
        if len(tensor.shape) >= 2 and tensor.data_bytes:
            by_shape.setdefault((tensor.dtype, tensor.shape), []).append(tensor)
    for same_shape in by_shape.values():
        if len(same_shape) > 1:
            ties |= _ties_among(same_shape)
    return ties


def _ties_among(tensors: Sequence[Tensor]) -> dict[str, str]:
    """Return the ties among tensors of one shape; only tensors with equal samples are read in full, each once."""
    ties: dict[str, str] = {}
    by_sample: dict[bytes, list[Tensor]] = {}
    for tensor in tensors:
        by_sample.setdefault(_sample(tensor), []).append(tensor)
    for same_sample in by_sample.values():
        # Tensors that are all in blocks are never tied.
        if len(same_sample) > 1 and not all(in_block(tensor.name) for tensor in same_sample):
            ties |= _ties_of_equal(same_sample)
    return ties


def _ties_of_equal(tensors: Sequence[Tensor]) -> dict[str, str]:
    """Return the ties among tensors of one shape; a tensor is tied to the first with equal bytes if `_may_be_tied`."""
    ties: dict[str, str] = {}
    first_by_digest: dict[bytes, Tensor] = {}
    for tensor in tensors:
        digest = _digest(tensor)
        if digest is None:
            continue
        first = first_by_digest.setdefault(digest, tensor)
        if first is not tensor and _may_be_tied(first, tensor):
            ties[tensor.name] = first.name
    return ties


def _sample(tensor: Tensor) -> bytes:
    """Read some bytes at the beginning, in the middle and at the end of a tensor."""
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
    """Whether at most one of two tensors is in a block; two tensors of blocks are never tied."""
    return not (in_block(first.name) and in_block(second.name))


def _digest(tensor: Tensor) -> bytes | None:
    """Return the BLAKE3 digest of a tensor's bytes; None if all of its entries are the same number."""
    item_bytes = max(1, DTYPE_BITS[tensor.dtype] // 8)  # entries smaller than a byte are compared as bytes
    hasher, is_constant, first_entry = blake3(), True, b""
    for piece in tensor.pieces():
        hasher.update(piece)
        first_entry = first_entry or piece[:item_bytes]
        is_constant = is_constant and piece == first_entry * (len(piece) // item_bytes)
    return None if is_constant else hasher.digest()
