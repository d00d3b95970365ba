"""A checkpoint's `config.json`, and whether it matches the tensors."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from masksmith.layouts.foreign_files import server_error_reason
from masksmith_client._errors import InputError

from .files import read_json

CONFIG_NAME = "config.json"

_EMBEDDING = re.compile(r"(?:^|\.)(?:embed_tokens|wte|word_embeddings|embed_in|shared)\.weight$")
"""Names of input embeddings."""

_BLOCK = re.compile(r"^(\D*?)(\d{1,18})\.")
"""Name of a tensor in a numbered block; the two groups are the text before the number, and the number.

The number of digits is limited, since Python refuses to convert thousands of digits.
"""

_HIDDEN = ("hidden_size", "n_embd", "d_model")
_LAYERS = ("num_hidden_layers", "n_layer")
"""Names that models have for two settings: the length of an embedding vector, and the number of layers."""

_COUNTED_OTHERWISE = frozenset({"num_hidden_groups", "num_block_repeats", "depths"})
"""Settings of models whose number of layers differs from the number of blocks; other models lack these settings."""

_EXTRA_ROWS = {"mllama_text_model": 8}
"""Rows that an embedding has in addition to the vocabulary, by the model type."""


def read_config(folder: Path) -> dict[str, Any] | None:
    """Read the config beside a checkpoint's files; None if there is none.

    Raises:
        InputError: If it cannot be read, or is not a JSON object, or is an error that a server sent.
    """
    path = folder / CONFIG_NAME
    if not os.path.lexists(path):
        return None
    config = read_json(path)
    if not isinstance(config, dict):
        raise InputError(f"{path} is not a JSON object")
    if (error := server_error_reason(config)) is not None:
        raise InputError(f"{path} is {error}")
    return config


def find_contradiction(config: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]], path: Path) -> str | None:
    """Find out whether config and tensors belong to different models, or blocks are missing in the checkpoint.

    Args:
        config: The config.
        shapes: Shapes of all tensors by name.
        path: Path of the config, for the message.

    Returns:
        A message, if a dimension of an embedding is nowhere in the config, if a block is missing, or if there are more
        blocks than the config says; else None.
    """
    text_config = config.get("text_config")
    sections = [config, text_config] if isinstance(text_config, Mapping) else [config]
    contradictions = (_embedding_contradiction(section, config, shapes, path) for section in sections)
    return next(filter(None, contradictions), None) or _block_contradiction(config, shapes, path)


def _embedding_contradiction(
    section: Mapping[str, Any], config: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]], path: Path
) -> str | None:
    """Compare the embeddings with the sizes in a section of the config, if the section has these sizes.

    A dimension is a contradiction only if no integer in the whole config (without lists) equals it, since models name
    sizes differently.
    """
    sizes = frozenset(_integers(config))
    extra_rows = _EXTRA_ROWS.get(str(section.get("model_type")), 0)
    for name, shape in shapes.items():
        if not _EMBEDDING.search(name) or len(shape) != 2:
            continue
        for keys, length in ((("vocab_size",), shape[0] - extra_rows), (_HIDDEN, shape[1])):
            key = next((key for key in keys if isinstance(section.get(key), int)), None)
            if key is not None and length not in sizes:
                return (
                    f"{path} says {key}={section[key]}, and {name!r} has the shape {list(shape)}: they belong to "
                    f"different models"
                )
    return None


def _integers(value: Any) -> Iterator[int]:
    """Yield the integers in a config and the sections inside it, but not those in lists."""
    if isinstance(value, Mapping):
        for member in value.values():
            yield from _integers(member)
    elif isinstance(value, int) and not isinstance(value, bool):
        yield value


def _block_contradiction(config: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]], path: Path) -> str | None:
    """Compare the blocks with the number of layers in the config.

    Returns None if the config has no number of layers, if the model has not exactly one list of blocks, or if the
    config has a setting of `_COUNTED_OTHERWISE`.
    """
    block_count = next((config[key] for key in _LAYERS if isinstance(config.get(key), int)), None)
    matches = [match for match in map(_BLOCK.match, shapes) if match]
    if block_count is None or _COUNTED_OTHERWISE & config.keys() or len({match[1] for match in matches}) != 1:
        return None
    numbers = {int(match[2]) for match in matches}
    missing_number = next((number for number in range(block_count) if number not in numbers), None)
    prefix = matches[0][1]
    if missing_number is not None:
        return (
            f"{path} says that there are {block_count} blocks, and there is no tensor of {prefix}{missing_number}: "
            f"download the checkpoint completely, or correct the config"
        )
    # Layers for the prediction of further tokens are stored as blocks after the others.
    prediction_layers = config.get("num_nextn_predict_layers")
    last_number = max(numbers)
    if last_number >= block_count + (prediction_layers if isinstance(prediction_layers, int) else 0):
        return f"{path} says that there are {block_count} blocks, and there are tensors of {prefix}{last_number}"
    return None
