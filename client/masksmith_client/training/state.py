"""A sparsifier's state: masks as packed bits, what is known of them, and where training stands."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from masksmith_client._errors import InputError
from masksmith_wire.masks import pack, packed_width, unpack

from .masked_layer import MaskedLayer

FORMAT = 1
KEY = "masksmith_training"


def mask_state(layer: MaskedLayer) -> dict[str, Any]:
    """Pack a layer's mask."""
    bits = torch.from_numpy(pack(layer.masking.mask.cpu().numpy()))
    return {"shape": list(layer.shape), "dense": layer.masking.dense, "bits": bits}


def set_mask(layer: MaskedLayer, state: Mapping[str, Any]) -> None:
    """Unpack a layer's mask."""
    mask = unpack(np.ascontiguousarray(state["bits"].cpu().numpy()), layer.shape)
    layer.masking.mask.copy_(torch.from_numpy(mask))
    layer.masking.dense = bool(state["dense"])


def check_state(state: Mapping[str, Any], pattern: str, method: str, layers: list[MaskedLayer]) -> None:
    """Refuse a state of something else.

    Raises:
        InputError: Naming what differs: the pattern, the method, a layer or its shape.
    """
    if state.get("format") != FORMAT:
        raise InputError(f"this is no sparsifier's state of format {FORMAT}: format is {state.get('format')!r}")
    for word, ours in (("pattern", pattern), ("method", method)):
        if state[word] != ours:
            raise InputError(f"the checkpoint's {word} is {state[word]!r}, this sparsifier's is {ours!r}")
    masks, names = state["masks"], {layer.name for layer in layers}
    for name in sorted(masks.keys() ^ names):
        where = "this sparsifier does not mask" if name in masks else "the checkpoint has no mask of"
        raise InputError(f"{where} {name!r}: make the sparsifier with the same layers")
    for layer in layers:
        mask = masks[layer.name]
        width = (*layer.shape[:-1], packed_width(layer.shape))
        if list(mask["shape"]) != list(layer.shape) or tuple(mask["bits"].shape) != width:
            raise InputError(f"{layer.name!r} has shape {mask['shape']} in the checkpoint, here {list(layer.shape)}")


def write_state(state: Mapping[str, Any], path: Path) -> None:
    """Write a state as a safetensors file."""
    masks = state["masks"]
    tensors = {name: mask["bits"].contiguous() for name, mask in masks.items()}
    described = {name: {"shape": mask["shape"], "dense": mask["dense"]} for name, mask in masks.items()}
    save_file(tensors, path, {KEY: json.dumps({**state, "masks": described})})


def read_state(path: Path) -> dict[str, Any]:
    """Read what `write_state` wrote; nothing is unpickled.

    Raises:
        InputError: If it is something else.
    """
    try:
        with safe_open(path, framework="pt") as file:
            state: dict[str, Any] = json.loads((file.metadata() or {})[KEY])
            state["masks"] = {name: mask | {"bits": file.get_tensor(name)} for name, mask in state["masks"].items()}
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise InputError(f"{path} is no sparsifier's state: {error}") from None
    return state
