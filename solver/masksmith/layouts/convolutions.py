"""Convolutions by name and shape: which tensors may be kernels, and which of these are transposed."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal, get_args

from .layout import AxisRole

TRANSPOSED_AXES: tuple[AxisRole, ...] = ("in", "out", "kernel", "kernel", "kernel")
"""Axes of a transposed convolution over three dimensions; over fewer, it has fewer axes `kernel`."""

GROUPED_TRANSPOSED = "a transposed convolution of several groups"
"""Why the weight of such a convolution is not masked: no layout describes `[in, out / groups, *kernel]`."""

Kind = Literal["plain", "transposed", "grouped transposed"]
"""Kinds of convolutions by their axes: `[out, in / groups, *kernel]`, `[in, out, *kernel]`, and the one above."""
KINDS: tuple[Kind, ...] = get_args(Kind)

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


def kinds_by_bias(shape: Sequence[int], bias: Sequence[int]) -> frozenset[Kind]:
    """Return the kinds of convolutions that a weight may be of, by its shape and its bias, with one entry per output.

    All kinds if the bias shows nothing: it is not a vector, or its length fits none.
    """
    first, second = shape[:2]
    outputs = bias[0] if len(bias) == 1 else 0
    groups = outputs // second
    fits = {
        "plain": outputs == first,
        "transposed": outputs == second,
        "grouped transposed": groups > 1 and outputs == groups * second and first % groups == 0,
    }
    return frozenset(kind for kind in KINDS if fits[kind]) or frozenset(KINDS)
