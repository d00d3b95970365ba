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
_EITHER = re.compile(
    r"(?:^|\.)(?:\w*upsampl\w*|ups|\w+_ups?|up(?:_?\d+)?|\w*up_?conv\w*|\w*conv_?up\w*|\w*conv_?t\d*(?:_pre|_post)?)"
    rf"(?:\.\d+)*(?:\.conv\d*)?{_WEIGHT}?$",
    re.IGNORECASE,
)


def may_be_kernel(name: str, shape: Sequence[int]) -> bool:
    """Whether a tensor of three dimensions or more may be a convolution, by its name or its shape.

    A convolution is a layer, so its parameter is called `weight`; a name without dots was chosen by the caller.
    """
    if len(shape) > len(TRANSPOSED):
        return False
    if _CONVOLUTION.search(name):
        return True
    is_layer = "." not in name or _LAYER_WEIGHT.search(name) is not None
    return is_layer and max(shape[2:]) <= MAX_KERNEL


def is_transposed_by_name(name: str) -> bool:
    """Whether a name means a transposed convolution."""
    return _TRANSPOSED.search(name) is not None


def may_be_transposed(name: str) -> bool:
    """Whether models use a name for plain and for transposed convolutions, such as `upsample.conv`."""
    return _EITHER.search(name) is not None


def bias_name(name: str) -> str:
    """Return the name of the bias beside a layer's weight."""
    return _LAYER_WEIGHT.sub(".bias", name)


def is_transposed_by_bias(shape: Sequence[int], bias: Sequence[int]) -> bool | None:
    """Whether a convolution is transposed, by its bias, which has an entry for each output; None if not clear."""
    if len(bias) != 1 or shape[0] == shape[1] or bias[0] not in shape[:2]:
        return None
    return bias[0] == shape[1]
