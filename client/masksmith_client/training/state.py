"""Makes, checks and restores a sparsifier's state (masks, records, step), writes it to a file, and reads the file."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from masksmith._atomic_write import replaced_when_complete
from masksmith_client._errors import InputError
from masksmith_wire.headers import HeaderError, read_header
from masksmith_wire.json_text import parse_json
from masksmith_wire.masks import pack, packed_width, unpack

from .copies import pruned_values, restore_pruned
from .masked_layer import MaskedLayer

FORMAT = 1
"""Version of the form of a state."""
KEY = "masksmith_training"
"""Key of the JSON in the metadata of a state's file."""
PRUNED = "/pruned/"
"""Separates, in the name of a tensor of pruned values, the layer's name from the tensor's key in `pruned_values`."""


def layers_state(layers: Iterable[MaskedLayer], *, pruned: bool) -> dict[str, Any]:
    """Return the members of a state that belong to layers: masks, and if `pruned` the result of `pruned_values`."""
    layers = list(layers)
    state: dict[str, Any] = {"format": FORMAT, "masks": {layer.name: packed_mask(layer) for layer in layers}}
    return state | {"pruned": {layer.name: pruned_values(layer) for layer in layers}} if pruned else state


def load_layers(layers: Iterable[MaskedLayer], state: Mapping[str, Any]) -> None:
    """Restore masks from the result of `layers_state`, and the values of pruned entries if the state contains them."""
    for layer in layers:
        restore_mask(layer, state["masks"][layer.name])
        if "pruned" in state:
            restore_pruned(layer, state["pruned"][layer.name])
            layer.masking.note_restored_values()


@torch.no_grad()
def check_saved_with_weights(layers: Iterable[MaskedLayer], state: Mapping[str, Any], where: object) -> None:
    """Check that a state with values of pruned entries was saved with the weights that the layers have now.

    Pruned entries of the weights are zero if the weights were saved masked; otherwise they have the state's values.

    Args:
        layers: The layers.
        state: A state that fits the layers, see `check_state`; without values of pruned entries, nothing is checked.
        where: What the state was read from, for the message.

    Raises:
        InputError: If pruned entries of a layer have other values.
    """
    for layer in layers if "pruned" in state else ():
        pruned, weight = state["pruned"][layer.name], layer.whole_weight()
        entries = weight[~pruned["kept"].to(weight.device)]
        # A NaN equals no value, so it is accepted.
        is_expected = (entries == 0) | (entries == pruned["values"].to(entries)) | entries.isnan()
        if not bool(is_expected.all()):
            raise InputError(f"{where} is not of the checkpoint whose weights were loaded: {layer.name!r} differs")


def packed_mask(layer: MaskedLayer) -> dict[str, Any]:
    """Return a layer's mask as packed bits, with its shape and whether the layer is dense."""
    bits = torch.from_numpy(pack(layer.whole_mask().cpu().numpy()))
    return {"shape": list(layer.shape), "dense": layer.masking.dense, "bits": bits}


def restore_mask(layer: MaskedLayer, state: Mapping[str, Any]) -> None:
    """Set a layer's mask from the result of `packed_mask`."""
    mask = unpack(np.ascontiguousarray(state["bits"].cpu().numpy()), layer.shape)
    layer.masking.mask.copy_(layer.masking.part_of(torch.from_numpy(mask)))
    layer.masking.dense = bool(state["dense"])


def check_state(state: Mapping[str, Any], pattern: str, method: str, layers: list[MaskedLayer]) -> None:
    """Check that a state fits the sparsifier.

    Raises:
        InputError: If it is no mapping; a member is missing; a member other than `layers` and `refreshes` has another
            type; format, pattern, method, the names of the layers or a shape differ; or pruned values do not fit their
            mask. The message names what is wrong.
    """
    if not isinstance(state, Mapping):
        raise InputError(f"{type(state).__name__} is not a sparsifier state: pass what state_dict() returned")
    state_format = state.get("format")
    if not isinstance(state_format, int) or state_format != FORMAT:
        raise InputError(f"not a sparsifier state of format {FORMAT}: its format is {state_format!r}")
    _check_fields("the checkpoint", state, ("pattern", "method", "step", "masks", "layers", "refreshes"))
    step = state["step"]
    if not isinstance(step, int) or step < 0:
        raise InputError(f"the checkpoint's step is {step!r}: expected the number of optimizer steps")
    for field, expected in (("pattern", pattern), ("method", method)):
        if not isinstance(state[field], str) or state[field] != expected:
            raise InputError(f"the checkpoint's {field} is {state[field]!r}, this sparsifier's is {expected!r}")
    masks, names = state["masks"], {layer.name for layer in layers}
    _check_fields("the checkpoint's masks", masks, ())
    for name in sorted(masks.keys() ^ names):
        difference = "this sparsifier does not mask" if name in masks else "the checkpoint has no mask of"
        raise InputError(f"{difference} {name!r}: create the sparsifier with the same layers")
    for layer in layers:
        _check_mask(layer, masks[layer.name])
    if "pruned" in state:
        _check_fields("the checkpoint's pruned values", state["pruned"], names)
        for layer in layers:
            _check_pruned(layer, state["pruned"][layer.name])


def _check_mask(layer: MaskedLayer, mask: Any) -> None:
    where = f"the checkpoint's mask of {layer.name!r}"
    _check_fields(where, mask, ("shape", "dense", "bits"))
    if not isinstance(mask["dense"], bool):
        raise InputError(f"{where}: 'dense' is {mask['dense']!r}, not true or false")
    _check_tensors(where, {"bits": mask["bits"]}, torch.uint8)
    if mask["shape"] not in (layer.shape, list(layer.shape)):
        raise InputError(
            f"{layer.name!r} has shape {mask['shape']} in the checkpoint, {list(layer.shape)} in the model"
        )
    bits_shape, packed_shape = list(mask["bits"].shape), [*layer.shape[:-1], packed_width(layer.shape)]
    if bits_shape != packed_shape:
        raise InputError(f"{where}: its bits have shape {bits_shape}, not {packed_shape}")


def _check_pruned(layer: MaskedLayer, pruned: Mapping[str, Tensor]) -> None:
    where = f"the checkpoint's pruned values of {layer.name!r}"
    parameters = dict(layer.masking.named_parameters())
    _check_fields(where, pruned, ("values", "kept", *parameters))
    _check_tensors(where, {"kept": pruned["kept"]}, torch.bool)
    _check_tensors(where, pruned)
    for name, parameter in parameters.items():
        if pruned[name].shape != parameter.shape:
            raise InputError(f"{where}: {name} has shape {list(pruned[name].shape)}, not {list(parameter.shape)}")
    if tuple(pruned["kept"].shape) != layer.shape or pruned["values"].numel() != int((~pruned["kept"]).sum()):
        raise InputError(
            f"{where} do not fit shape {list(layer.shape)}, or their number is not that of the pruned entries"
        )


def _check_fields(where: str, fields: Any, names: Iterable[str]) -> None:
    """Check that `fields` is a mapping that has these keys; `where` is the subject of the message."""
    if not isinstance(fields, Mapping):
        raise InputError(f"{where} is a {type(fields).__name__}: pass what state_dict() returned")
    missing = [name for name in names if name not in fields]
    if missing:
        raise InputError(f"{where} has no {missing[0]!r}: pass what state_dict() returned")


def _check_tensors(where: str, fields: Mapping[str, Any], dtype: torch.dtype | None = None) -> None:
    """Check that all values are tensors, and of this dtype if one is passed."""
    for name, value in fields.items():
        if not isinstance(value, Tensor) or dtype not in (None, value.dtype):
            actual = value.dtype if isinstance(value, Tensor) else type(value).__name__
            expected = "a tensor" if dtype is None else f"a tensor of {dtype}"
            raise InputError(f"{where}: {name!r} is {actual}, not {expected}: pass what state_dict() returned")


def write_state(state: Mapping[str, Any], path: Path) -> None:
    """Write a state as a safetensors file; if that fails, a file that is already there stays as it is.

    Several processes may write the same file at the same time.

    Raises:
        InputError: If the file cannot be written, for example since its folder is missing.
    """
    masks = state["masks"]
    tensors = {name: mask["bits"].contiguous() for name, mask in masks.items()}
    for name, pruned in state.get("pruned", {}).items():
        tensors |= {f"{name}{PRUNED}{key}": tensor.contiguous() for key, tensor in pruned.items()}
    mask_fields = {name: {"shape": mask["shape"], "dense": mask["dense"]} for name, mask in masks.items()}
    fields = {name: value for name, value in state.items() if name != "pruned"}
    try:
        with replaced_when_complete(path) as temporary:
            save_file(tensors, temporary, {KEY: json.dumps({**fields, "masks": mask_fields})})
    except (OSError, SafetensorError, ValueError) as error:  # ValueError: the path has a null character.
        raise InputError(f"the sparsifier's state cannot be written to {path}: {error}") from error


def read_state(path: Path) -> dict[str, Any]:
    """Read a state that `write_state` wrote; pickles are never loaded.

    Raises:
        InputError: If the file cannot be read, or is not a sparsifier state.
    """
    try:
        with path.open("rb") as opened:
            read_header(opened)  # Its errors say what the file is instead, such as a Git LFS pointer.
        with safe_open(path, framework="pt") as file:
            state: dict[str, Any] = parse_json((file.metadata() or {})[KEY])
            _check_fields("its JSON", state, ("masks",))
            _check_fields("its member masks", state["masks"], ())
            state.pop("pruned", None)  # `write_state` writes no such member: pruned values are tensors of the file.
            for name, mask in state["masks"].items():
                _check_fields(f"its mask of {name!r}", mask, ())
                mask["bits"] = file.get_tensor(name)
            for tensor_name in file.keys():  # noqa: SIM118 - `file` is no mapping
                name, separator, key = tensor_name.partition(PRUNED)
                if separator:
                    state.setdefault("pruned", {}).setdefault(name, {})[key] = file.get_tensor(tensor_name)
    except (OSError, HeaderError, SafetensorError, KeyError, ValueError, InputError) as error:
        raise InputError(f"{path} is not a sparsifier state: {error}") from None
    return state
