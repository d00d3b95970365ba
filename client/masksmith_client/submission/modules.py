"""Finds the layouts of a torch module's weights by the classes of its layers, without importing torch.

The classes also show which weights are dense by default, such as embeddings, and which are not supported.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

from masksmith.layouts import Layout, is_transformers_conv1d, plain_path
from masksmith.layouts.convolutions import GROUPED_TRANSPOSED

from .streamed_tensor import StreamedTensor

_LAYER_WEIGHT = re.compile(r"(?:(?P<path>.*?)\.)?(?:weight|weight_v|parametrizations\.weight\.original1?)$", re.DOTALL)
"""Names of a layer's weight. Under a parametrization, it is named `original`. Under weight normalization, it has two
parameters: a norm, and a direction, which is named `weight_v` or `original1`; the direction is matched."""


def with_module_layouts(module: Any, weights: list[StreamedTensor]) -> list[StreamedTensor]:
    """Return the weights of a module's `state_dict`, with what the classes of their layers show.

    A class shows the layout of a weight, the reason why it is dense by default, or the reason why it is not supported;
    and whether it may be the weight of a convolution. Nothing is added if the module has no `named_modules`.

    Args:
        module: A `torch.nn.Module`, or anything with a `state_dict`.
        weights: Its weights, named as in the plain model: without the segments that `torch.compile` and other wrappers
            add to names.
    """
    has_modules = callable(getattr(module, "named_modules", None))
    # A layer that is registered twice has a weight under both paths in the `state_dict`.
    modules = module.named_modules(remove_duplicate=False) if has_modules else ()
    layers = {plain_path(module, path): layer for path, layer in modules}
    return [_with_layout(weight, layers) for weight in weights]


def layer_of(name: str, layers: Mapping[str, Any]) -> Any | None:
    """Return the layer that has a parameter as its weight, or as the direction of its weight; None if there is none.

    Args:
        name: Name of the parameter.
        layers: The model's modules by path, with paths as in `name`.
    """
    match = _LAYER_WEIGHT.match(name)
    return None if match is None else layers.get(match["path"] or "")


def _with_layout(weight: StreamedTensor, layers: Mapping[str, Any]) -> StreamedTensor:
    layer = layer_of(weight.name, layers)
    if len(weight.shape) < 2 or not layers:
        return weight
    if layer is None:
        return dataclasses.replace(weight, may_be_convolution=False)
    reason = dense_reason(layer)
    if reason is not None:
        return dataclasses.replace(weight, dense_by_default_reason=reason)
    classes = class_names(layer)
    if "Bilinear" in classes:
        return dataclasses.replace(weight, unsupported_reason="Bilinear multiplies with two inputs, not with one")
    if "_ConvTransposeNd" in classes and layer.groups > 1:
        return dataclasses.replace(weight, unsupported_reason=GROUPED_TRANSPOSED)
    layout = layout_of(layer, len(weight.shape))
    return dataclasses.replace(weight, layout=layout, may_be_convolution="_ConvNd" in classes)


def class_names(layer: Any) -> list[str]:
    """Return the names of a layer's class and its bases."""
    return [base.__name__ for base in type(layer).__mro__]


def dense_reason(layer: Any) -> str | None:
    """Return why the weight of a layer is dense by default; None unless the layer is an embedding."""
    is_embedding = not {"Embedding", "EmbeddingBag"}.isdisjoint(class_names(layer))
    return "an embedding, which is looked up, not multiplied" if is_embedding else None


def layout_of(layer: Any, dimensions: int) -> Layout | None:
    """Return the layout of a weight with this number of dimensions; None if its layer's class does not show it."""
    axes = _axes(layer, dimensions)
    return None if axes is None else Layout.parse(axes, rule="model")


def _axes(layer: Any, dimensions: int) -> str | None:
    classes, kernel = class_names(layer), ("kernel",) * (dimensions - 2)
    if "_ConvTransposeNd" in classes:
        return " ".join(("in", "out", *kernel))
    if is_transformers_conv1d(layer):
        return "in out"
    if "Linear" in classes:
        return "out in"
    if "_ConvNd" in classes:
        return " ".join(("out", "in", *kernel))
    return None
