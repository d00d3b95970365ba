"""Copies of a masked model, such as moving averages: bake their masks into their weights."""

from __future__ import annotations

import torch
from torch.nn.utils import parametrize

from masksmith_client._errors import InputError

from .masked_layer import MaskedLayer, dense_weight, remove_masking
from .methods.method import Method
from .sharding import zero_outside


@torch.no_grad()
def bake_copy(model: torch.nn.Module, layers: list[MaskedLayer], method: Method) -> torch.nn.Module:
    """Replace the weights of a copy by the masked weights, and return it; without own masks, by the present ones.

    Raises:
        InputError: If the copy lacks a masked layer, or it has another shape; nothing is changed then.
    """
    for layer in layers:
        for path in layer.modules:
            _check(model, path, layer)
    for layer in layers:
        for path, original in layer.modules.items():
            module = model.get_submodule(path)
            if parametrize.is_parametrized(module, layer.attribute):
                remove_masking(module, layer.attribute, layer.order(original), masked=True)
            else:
                weight = module.get_parameter(layer.attribute)
                zero_outside(weight, method.kept(layer).to(weight.device))
    return model


def _check(model: torch.nn.Module, path: str, layer: MaskedLayer) -> None:
    try:
        weight = dense_weight(model.get_submodule(path), layer.attribute)
    except AttributeError:
        raise InputError(f"the copy has no layer {path!r}: pass a copy of the sparsifier's model") from None
    if tuple(weight.shape) != layer.shape:
        raise InputError(f"{layer.name!r} has shape {list(weight.shape)} in the copy, not {list(layer.shape)}")
