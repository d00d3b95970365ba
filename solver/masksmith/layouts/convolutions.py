"""Convolutions by name and shape: which tensors may be kernels, and which of these are transposed."""

from __future__ import annotations

import re
from collections.abc import Sequence

from .layout import AxisRole

TRANSPOSED: tuple[AxisRole, ...] = ("in", "out", "kernel", "kernel", "kernel")
"""Axes of a transposed convolution."""

MAX_KERNEL = 15
"""Longest side of a kernel that is recognised by the shape alone."""

_WEIGHT = r"(?:\.weight(?:_v)?|\.parametrizations\.weight\.original[01]?)"
_LAYER_WEIGHT = re.compile(rf"{_WEIGHT}$")
_CONVOLUTION = re.compile(r"conv|downsample", re.IGNORECASE)
_TRANSPOSED = re.compile(r"conv\d*_?transp|conv_?trans(?:\d|[._]|$)|transp\w*_?conv|deconv", re.IGNORECASE)
_PLAIN_OR_TRANSPOSED = re.compile(
    r"(?:^|\.)(?:\w*upsampl\w*|ups|\w+_ups?|up(?:_?\d+)?|\w*up_?conv\w*|\w*conv_?up\w*|\w*conv_?t\d*(?:_pre|_post)?)"
    rf"(?:\.\d+)*(?:\.conv\d*)?{_WEIGHT}?$",
    re.IGNORECASE,
)


def may_be_kernel(name: str, shape: Sequence[int]) -> bool:
    """Whether a tensor of three dimensions or more may be a convolution, by its name or its shape.

    Without a name such as `conv`, a tensor may be one only if its kernel is small and its name ends in `weight`, as the
    parameter of a layer does; names without dots were chosen by the caller and may end in anything.
    """
    if len(shape) > len(TRANSPOSED):
        return False
    if _CONVOLUTION.search(name):
        return True
    is_layer = "." not in name or _LAYER_WEIGHT.search(name) is not None
    return is_layer and max(shape[2:]) <= MAX_KERNEL


def is_transposed_by_name(name: str) -> bool:
    """Whether a name is used only for transposed convolutions."""
    return _TRANSPOSED.search(name) is not None


def may_be_transposed(name: str) -> bool:
    """Whether a name is used for plain and for transposed convolutions, as `upsample.conv` is."""
    return _PLAIN_OR_TRANSPOSED.search(name) is not None


def bias_name(name: str) -> str:
    """Return the name of the bias of a layer, from the name of its weight."""
    return _LAYER_WEIGHT.sub(".bias", name)


def is_transposed_by_bias(shape: Sequence[int], bias: Sequence[int]) -> bool | None:
    """Whether a convolution is transposed, since its bias has one entry per output; None if both axes may be `out`."""
    if len(bias) != 1 or shape[0] == shape[1] or bias[0] not in shape[:2]:
        return None
    return bias[0] == shape[1]
