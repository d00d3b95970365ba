"""Convolutions by name and shape: which tensors may be kernels, and which of these are transposed."""

from __future__ import annotations

import re
from collections.abc import Sequence

from .layout import AxisRole

TRANSPOSED_AXES: tuple[AxisRole, ...] = ("in", "out", "kernel", "kernel", "kernel")
"""Axes of a transposed convolution over three dimensions; over fewer, it has fewer axes `kernel`."""

MAX_KERNEL = 15
"""Longest side of a kernel that is recognised by the shape alone."""

_WEIGHT = r"(?:\.weight(?:_v)?)"
_LAYER_WEIGHT = re.compile(rf"{_WEIGHT}$")
_CONVOLUTION_NAME = re.compile(r"conv|downsample", re.IGNORECASE)
_TRANSPOSED_NAME = re.compile(r"conv\d*_?transp|conv_?trans(?:\d|[._]|$)|transp\w*_?conv|deconv", re.IGNORECASE)
_PLAIN_OR_TRANSPOSED_NAME = re.compile(
    r"(?:^|\.)(?:\w*upsampl\w*|ups|\w+_ups?|up(?:_?\d+)?|\w*up_?conv\w*|\w*conv_?up\w*|\w*conv_?t\d*(?:_pre|_post)?)"
    rf"(?:\.\d+)*(?:\.conv\d*)?{_WEIGHT}?$",
    re.IGNORECASE,
)


def may_be_kernel(name: str, shape: Sequence[int]) -> bool:
    """Whether a tensor of three dimensions or more may be the weight of a convolution, by its name and shape.

    A tensor of more than five dimensions may not. Without a name such as `conv`, a tensor may be one only if the sides
    of its kernel are short and its name ends as that of a layer's weight (`_LAYER_WEIGHT`); names without dots were
    chosen by the caller and may end in anything.
    """
    if len(shape) > len(TRANSPOSED_AXES):
        return False
    if _CONVOLUTION_NAME.search(name):
        return True
    is_layer = "." not in name or _LAYER_WEIGHT.search(name) is not None
    return is_layer and max(shape[2:]) <= MAX_KERNEL


def is_transposed_by_name(name: str) -> bool:
    """Whether a name is used only for transposed convolutions."""
    return _TRANSPOSED_NAME.search(name) is not None


def may_be_transposed(name: str) -> bool:
    """Whether a name is used for plain and for transposed convolutions, as `upsample.conv` is."""
    return _PLAIN_OR_TRANSPOSED_NAME.search(name) is not None


def bias_name(name: str) -> str:
    """Return the name of the bias of a layer, from the name of its weight."""
    return _LAYER_WEIGHT.sub(".bias", name)


def is_transposed_by_bias(shape: Sequence[int], bias: Sequence[int]) -> bool | None:
    """Whether the bias, which has one entry per output, shows that a convolution is transposed.

    None if it shows nothing: it is not a vector, its length is that of neither axis, or both axes have that length.
    """
    if len(bias) != 1 or shape[0] == shape[1] or bias[0] not in shape[:2]:
        return None
    return bias[0] == shape[1]
