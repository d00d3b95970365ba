"""Plain state dicts of a masked model, the values that these lack, and copies of a model with masks baked in."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from masksmith.layouts import plain_path
from masksmith_client._errors import InputError

from .adapters import refuse_merged_modules
from .masked_layer import MaskedLayer
from .masking import Masking
from .names import paths_by_module, state_names_by_parameter
from .sharding import as_sharded, gathered, reshard


def plain_state(model: torch.nn.Module, masked: Iterable[tuple[MaskedLayer, Tensor]]) -> dict[str, Tensor]:
    """Return a model's state dict with plain names, whole tensors and masked weights.

    Args:
        model: The model.
        masked: The masked layers, each with its masked weight; an iterator may compute one weight at a time.

    Raises:
        InputError: If the model's state dict lacks the weight of a layer.
    """
    names_of_maskings = _state_names_of_maskings(model)
    state = {
        plain_path(model, name): gathered(value.detach()) if isinstance(value, Tensor) else value
        for name, value in model.state_dict().items()
        if name not in names_of_maskings
    }
    names_in_state = _NamesInState(model)
    for layer, weight in masked:
        state.update(dict.fromkeys(names_in_state.find(layer, state), weight))
    return state


def bake_copy(model: torch.nn.Module, copy: torch.nn.Module, layers: Iterable[MaskedLayer]) -> torch.nn.Module:
    """Replace the weights of a copy of the model by masked ones, remove the masks from the copy, and return the copy.

    The copy's weights may differ from the model's, for example because they are an average.

    Raises:
        InputError: If the copy is not a module, lacks a masked layer, or has a layer that `MaskedLayer.check_copy`
            refuses, for example because its weight has another shape; if an adapter is merged into a weight of the
            copy; or if values were written in place into the temporary tensor that reading a masked weight of the copy
            returns. The copy is then unchanged.
    """
    if not isinstance(copy, torch.nn.Module):
        raise InputError(f"model={type(copy).__name__} is not a torch.nn.Module")
    reshard(copy)
    modules = {plain_path(copy, path): module for path, module in copy.named_modules(remove_duplicate=False)}
    paths = paths_by_module(model)
    modules_of_layers: list[tuple[MaskedLayer, dict[str, torch.nn.Module]]] = []
    for layer in layers:
        copies = {}
        for path in _paths_of(layer, paths):
            module = modules.get(plain_path(model, path))
            if module is None:
                raise InputError(f"the copy has no layer {path!r}")
            layer.check_copy(module)
            copies[path] = module
        modules_of_layers.append((layer, copies))
    refuse_merged_modules(copy, ((layer.name, copies) for layer, copies in modules_of_layers), "the copy's ")
    for layer, copies in modules_of_layers:
        layer.check_writes_into(copies.values())
    for layer, copies in modules_of_layers:
        layer.bake_into(list(copies.values()))
    return copy


@torch.no_grad()
def mask_state_dict(state: dict[str, Any], model: torch.nn.Module, layers: Iterable[MaskedLayer]) -> None:
    """Replace the weights in a state dict by masked ones, and remove the parameters of the training method from it.

    Args:
        state: The state dict of the module, or of an average of its weights.
        model: The module, which contains the masked layers.
        layers: The masked layers.

    Raises:
        InputError: If the module contains none of the masked layers, or the state dict lacks the weight of one that it
            contains; the state dict is then unchanged.
    """
    layers = list(layers)
    check_has_masked_layer(model, layers)
    for layer, names in _named_layers(state, model, layers):
        kept = layer.whole_kept()  # Gathered from all ranks, also from those whose state dict is empty.
        for name in names:
            value = state[name].detach()
            state[name] = value.masked_fill(~as_sharded(kept, value), 0)
            for parameter, _ in layer.masking.named_parameters():
                state.pop(f"{name}_masking.{parameter}", None)


@torch.no_grad()
def removed_by_masks(
    state: Mapping[str, Tensor], model: torch.nn.Module, layers: Iterable[MaskedLayer]
) -> dict[str, dict[str, Tensor]]:
    """Return the values that `mask_state_dict` would remove from a state dict, by the weight's name in the state dict.

    Each weight has a dict with the keys of `pruned_values`; its numbers are those of the state dict, not of the layer.
    Raises `InputError` if the state dict lacks the weight of a layer.
    """
    removed = {}
    for layer, names in _named_layers(state, model, layers):
        kept = layer.whole_kept()
        method_parameters = [parameter for parameter, _ in layer.masking.named_parameters()]
        for name in names:
            parameters = {
                parameter: gathered(state[f"{name}_masking.{parameter}"].detach()).clone()
                for parameter in method_parameters
            }
            values = gathered(state[name].detach())
            # An average may be on another device than the model.
            pruned = values[~kept.to(values.device)]
            removed[name] = {"values": pruned, "kept": kept.clone(), **parameters}
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
    """Return the values of a layer that a plain state dict does not have.

    The keys are `values` (the dense values of the pruned entries), `kept` (the mask of the other entries), and the
    names of the training method's parameters.
    """
    weight = layer.whole_weight()
    kept = layer.whole_kept().clone()  # Refreshes change the mask of the layer in place.
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


class _NamesInState:
    """Finds the names that weights have in a state dict of a model, or of an average of its weights."""

    def __init__(self, model: torch.nn.Module) -> None:
        self._model = model
        self._paths = paths_by_module(model)
        self._state_names = state_names_by_parameter(model)

    def find(self, layer: MaskedLayer, state: Collection[str]) -> list[str]:
        """Return all names of a layer's weight in a state; an empty list if the model does not contain the layer.

        The list is empty for an empty state, too, which ranks of a sharded model other than the first may have. A
        weight may be named by its path, by its path in the plain model, or as the model's own state dict names it.

        Raises:
            InputError: If the model contains the layer, and a state that is not empty lacks its weight.
        """
        paths = _paths_of(layer, self._paths)
        names_by_path = [".".join(filter(None, (path, layer.parameter))) for path in paths]
        names = dict.fromkeys([*names_by_path, *self._state_names.get(id(layer.weight), ())])
        names |= dict.fromkeys(plain_path(self._model, name) for name in names)
        in_state = [name for name in names if name in state]
        if paths and state and not in_state:
            raise InputError(
                f"the state dict lacks the weight of the masked layer {layer.name!r}, which may be dense under another "
                f"name: it must have {' or '.join(map(repr, names))}"
            )
        return in_state


def _named_layers(
    state: Collection[str], model: torch.nn.Module, layers: Iterable[MaskedLayer]
) -> list[tuple[MaskedLayer, list[str]]]:
    """Return each layer with all names of its weight in a state; raises as `_NamesInState.find` does."""
    names_in_state = _NamesInState(model)
    return [(layer, names_in_state.find(layer, state)) for layer in layers]


def _state_names_of_maskings(model: torch.nn.Module) -> set[str]:
    """Return the names, in the model's state dict, of the parameters that training methods have added."""
    state_names = state_names_by_parameter(model)
    paths = paths_by_module(model)
    maskings = [module for module in model.modules() if isinstance(module, Masking)]
    return {
        name
        for masking in maskings
        for parameter, value in masking.named_parameters()
        for name in [*(f"{path}.{parameter}" for path in paths[id(masking)]), *state_names.get(id(value), ())]
    }


def _weight_name(model: torch.nn.Module, path: str, layer: MaskedLayer) -> str:
    return ".".join(filter(None, (plain_path(model, path), layer.parameter)))
