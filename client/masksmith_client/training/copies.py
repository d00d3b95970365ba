"""Plain state dicts of a masked model, the values that these lack, and copies of a model with masks baked in."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from masksmith.layouts import plain_path
from masksmith_client._errors import InputError

from .masked_layer import MaskedLayer
from .masking import Masking
from .names import paths_by_module
from .sharding import as_sharded, gathered


def plain_state(model: torch.nn.Module, masked: Iterable[tuple[MaskedLayer, Tensor]]) -> dict[str, Tensor]:
    """Return a model's state dict with plain names, whole tensors and masked weights.

    Args:
        model: The model.
        masked: The masked layers, each with its masked weight; an iterator may compute one weight at a time.
    """
    modules = model.named_modules(remove_duplicate=False)
    masking_prefixes = tuple(f"{path}." for path, module in modules if isinstance(module, Masking))
    state = {
        plain_path(model, name): gathered(value.detach()) if isinstance(value, Tensor) else value
        for name, value in model.state_dict().items()
        if not name.startswith(masking_prefixes)
    }
    paths = paths_by_module(model)
    for layer, weight in masked:
        for path in _paths_of(layer, paths):
            state[_weight_name(model, path, layer)] = weight
    return state


def bake_copy(model: torch.nn.Module, copy: torch.nn.Module, layers: Iterable[MaskedLayer]) -> torch.nn.Module:
    """Replace the weights of a copy of the model by masked ones, remove the masks from the copy, and return the copy.

    The copy's weights may differ from the model's, for example because they are an average.

    Raises:
        InputError: If the copy is not a module, lacks a masked layer, or has a weight of another shape; the copy
            is then unchanged.
    """
    if not isinstance(copy, torch.nn.Module):
        raise InputError(f"model={type(copy).__name__} is not a torch.nn.Module")
    modules = {plain_path(copy, path): module for path, module in copy.named_modules(remove_duplicate=False)}
    paths = paths_by_module(model)
    modules_of_layers: list[tuple[MaskedLayer, list[torch.nn.Module]]] = []
    for layer in layers:
        copies = []
        for path in _paths_of(layer, paths):
            module = modules.get(plain_path(model, path))
            if module is None:
                raise InputError(f"the copy has no layer {path!r}")
            layer.check_copy(module)
            copies.append(module)
        modules_of_layers.append((layer, copies))
    for layer, copies in modules_of_layers:
        layer.bake_into(copies)
    return copy


@torch.no_grad()
def mask_state_dict(state: dict[str, Any], model: torch.nn.Module, layers: Iterable[MaskedLayer]) -> None:
    """Replace the weights in a state dict by masked ones, and remove the parameters of the training method from it.

    Args:
        state: The state dict of the module, or of an average of its weights.
        model: The module, which contains the masked layers.
        layers: The masked layers.

    Raises:
        InputError: If the module contains none of the masked layers.
    """
    layers = list(layers)
    check_has_masked_layer(model, layers)
    for layer, name in _names_in_state(model, layers):
        if name in state:
            value = state[name].detach()
            state[name] = value.masked_fill(~as_sharded(layer.whole_kept(), value), 0)
        for parameter, _ in layer.masking.named_parameters():
            state.pop(f"{name}_masking.{parameter}", None)


@torch.no_grad()
def removed_by_masks(
    state: Mapping[str, Tensor], model: torch.nn.Module, layers: Iterable[MaskedLayer]
) -> dict[str, dict[str, Tensor]]:
    """Return what `mask_state_dict` will remove from a state dict, by the weight's name in it.

    For each weight, the keys are those of `pruned_values`; the values are those of the state dict.
    """
    removed = {}
    for layer, name in _names_in_state(model, layers):
        kept = layer.whole_kept()
        names = [parameter for parameter, _ in layer.masking.named_parameters()]
        parameters = {each: gathered(state[f"{name}_masking.{each}"].detach()).clone() for each in names}
        removed[name] = {"values": gathered(state[name].detach())[~kept], "kept": kept.clone(), **parameters}
    return removed


@torch.no_grad()
def with_removed(state: Mapping[str, Tensor], removed: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Return a state dict as it was before `mask_state_dict`; `removed` is the result of `removed_by_masks`."""
    whole = dict(state)
    for name, parts in removed.items():
        kept = parts["kept"].to(state[name].device)
        whole[name] = state[name].masked_scatter(~kept, parts["values"].to(state[name]))
        others = parts.keys() - {"values", "kept"}
        whole |= {f"{name}_masking.{parameter}": parts[parameter] for parameter in others}
    return whole


def check_has_masked_layer(model: torch.nn.Module, layers: Sequence[MaskedLayer]) -> None:
    """Raise `InputError` if there are masked layers and the model contains none of them."""
    modules = {id(module) for module in model.modules()}
    if layers and not any(id(module) in modules for layer in layers for module in layer.modules.values()):
        raise InputError(
            f"{type(model).__name__} does not hold the masked layers, such as {layers[0].name!r}: create the "
            "Sparsifier on the model that is trained, and pass that model"
        )


@torch.no_grad()
def pruned_values(layer: MaskedLayer) -> dict[str, Tensor]:
    """Return what a plain state dict lacks of a layer.

    The keys are `values` (the dense values of the pruned entries), `kept` (the mask of the other entries), and the
    names of the training method's parameters.
    """
    weight = layer.whole_weight()
    kept = layer.whole_kept()
    parameters = {name: gathered(parameter.detach()).clone() for name, parameter in layer.masking.named_parameters()}
    return {"values": weight[~kept], "kept": kept, **parameters}


@torch.no_grad()
def restore_pruned(layer: MaskedLayer, pruned: Mapping[str, Tensor]) -> None:
    """Restore dense values of pruned entries, and the method's parameters; `pruned` comes from `pruned_values`."""
    weight = layer.weight.detach()
    whole = layer.whole_weight().clone()
    whole[~pruned["kept"].to(whole.device)] = pruned["values"].to(whole)
    weight.copy_(as_sharded(whole, weight))
    for name, parameter in layer.masking.named_parameters():
        parameter.copy_(as_sharded(pruned[name].to(parameter.dtype), parameter))


def shared_names(model: torch.nn.Module, layers: Iterable[MaskedLayer]) -> dict[str, str]:
    """Return, for weights that the model has under several names, the layer's name by each of the other names."""
    paths = paths_by_module(model)
    names = {_weight_name(model, path, layer): layer.name for layer in layers for path in _paths_of(layer, paths)}
    return {name: layer_name for name, layer_name in names.items() if name != layer_name}


def _paths_of(layer: MaskedLayer, paths: Mapping[int, list[str]]) -> list[str]:
    return [path for module in layer.modules.values() for path in paths.get(id(module), ())]


def _names_in_state(model: torch.nn.Module, layers: Iterable[MaskedLayer]) -> Iterator[tuple[MaskedLayer, str]]:
    """Yield each layer with each name that its weight has in the state dict of the model."""
    paths = paths_by_module(model)
    for layer in layers:
        for path in _paths_of(layer, paths):
            yield layer, f"{path}.{layer.parameter}" if path else layer.parameter


def _weight_name(model: torch.nn.Module, path: str, layer: MaskedLayer) -> str:
    return ".".join(filter(None, (plain_path(model, path), layer.parameter)))
