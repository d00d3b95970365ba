"""Axes, and reasons to stay dense, of the parameters that no forward pass reached, from the classes of their layers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from masksmith.layouts.convolutions import GROUPED_TRANSPOSED, is_depthwise
from masksmith_client.submission.modules import class_names, dense_reason, layer_of, layout_of

from .observations import Observations
from .watcher import DEPTHWISE


def extended_by_layer_classes(observations: Observations, model: Any) -> Observations:
    """Add, for each parameter that has neither axes nor a reason, what the class of its layer shows.

    It shows the axes of linear layers and convolutions, and the reason why the parameter of a layer stays dense. A
    depthwise convolution gets both; a transposed convolution of several groups only the reason.
    """
    layers = dict(model.named_modules())
    axes, reasons = dict(observations.axes), dict(observations.reasons)
    for name, parameter in model.named_parameters():
        layer = layer_of(name, layers)
        if layer is None or parameter.ndim < 2 or name in observations.axes or name in observations.reasons:
            continue
        reason = _reason(layer, tuple(parameter.shape))
        layout = layout_of(layer, parameter.ndim)
        if reason is not None:
            reasons[name] = reason
        # The axes of `layout_of`, which ignores groups, are wrong for a transposed convolution of several groups.
        if layout is not None and not _is_grouped_transposed(layer):
            axes[name] = layout.axes
    return replace(observations, axes=axes, reasons=reasons)


def _reason(layer: Any, shape: tuple[int, ...]) -> str | None:
    is_transposed = "_ConvTransposeNd" in class_names(layer)
    if is_depthwise(shape, getattr(layer, "groups", 1), is_transposed=is_transposed):
        return DEPTHWISE
    return GROUPED_TRANSPOSED if _is_grouped_transposed(layer) else dense_reason(layer)


def _is_grouped_transposed(layer: Any) -> bool:
    return "_ConvTransposeNd" in class_names(layer) and layer.groups > 1
