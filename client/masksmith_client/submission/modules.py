"""Layouts that a torch module's layers give their weights, read from their classes; torch itself is not imported."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from masksmith.layouts import Layout

from .streamed_tensor import StreamedTensor


def with_module_layouts(module: Any, weights: list[StreamedTensor]) -> list[StreamedTensor]:
    """Return the weights of a module's `state_dict` the layouts of the layers that hold them.

    Args:
        module: A `torch.nn.Module`, or anything with a `state_dict`.
        weights: Its weights.
    """
    layers = dict(module.named_modules()) if callable(getattr(module, "named_modules", None)) else {}
    return [_with_layout(weight, layers) for weight in weights]


def _with_layout(weight: StreamedTensor, layers: Mapping[str, Any]) -> StreamedTensor:
    path, _, parameter = weight.name.rpartition(".")
    layer = layers.get(path)
    classes = [] if layer is None else [kind.__name__ for kind in type(layer).__mro__]
    if layer is None or parameter != "weight" or len(weight.shape) < 2:
        return weight
    if "Embedding" in classes or "EmbeddingBag" in classes:
        return dataclasses.replace(weight, dense_by_default="an embedding, which is looked up, not multiplied")
    if "Bilinear" in classes:
        return dataclasses.replace(weight, unsupported_reason="Bilinear multiplies with two inputs, not with one")
    if "_ConvTransposeNd" in classes and layer.groups > 1:
        return dataclasses.replace(weight, unsupported_reason="a transposed convolution of several groups")
    layout = layout_of(layer, len(weight.shape))
    return weight if layout is None else dataclasses.replace(weight, layout=layout)


def layout_of(layer: Any, dimensions: int) -> Layout | None:
    """Return the layout of a layer's weight; None if its class does not show it."""
    axes = _axes([kind.__name__ for kind in type(layer).__mro__], dimensions)
    return None if axes is None else Layout.parse(axes, rule="model")


def _axes(classes: list[str], dimensions: int) -> str | None:
    if "_ConvTransposeNd" in classes:
        return " ".join(("in", "out", *("kernel",) * (dimensions - 2)))
    if "Conv1D" in classes:
        return "in out"
    if "Linear" in classes:
        return "out in"
    return " ".join(("out", "in", *("kernel",) * (dimensions - 2))) if "_ConvNd" in classes else None
