"""Recognise the weights of convolutions, and whether these are transposed, by names, shapes and biases."""

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
"""Kinds of convolutions. The axes of their weights are, in this order: `[out, in / groups, *kernel]`;
`[in, out, *kernel]`; and, with several groups, `[in, out / groups, *kernel]`."""
KINDS: tuple[Kind, ...] = get_args(Kind)

MAX_KERNEL = 15
"""Longest side of the kernel of a weight whose name does not contain `conv` or `downsample`."""

# Under weight normalisation, `weight_v` has the shape of the weight.
_WEIGHT = r"(?:\.weight(?:_v)?)"
_LAYER_WEIGHT = re.compile(rf"{_WEIGHT}$")
_CONVOLUTION_NAME = re.compile(r"conv|downsample", re.IGNORECASE)
# A parameter below `conv` may be another one than its weight, such as a bias of shape `[1, out, 1]`, or a table.
_CONVOLUTION_WEIGHT = re.compile(
    r"(?:^|[._])(?:weight(?:_\w+)?|w|filters?)$|\.original[01]?$|conv_?\d*d?$", re.IGNORECASE
)
_TRANSPOSED_NAME = re.compile(r"conv\d*_?transp|conv_?trans(?:\d|[._]|$)|transp\w*_?conv|deconv", re.IGNORECASE)
_PLAIN_OR_TRANSPOSED_NAME = re.compile(
    r"(?:^|\.)(?:\w*(?:up_?sampl|upscal|unpool)\w*|ups|\w+_ups?|up(?:_?\d+)?|\w*up_?conv\w*|\w*conv_?up\w*|\w*conv_?t\d*(?:_pre|_post)?)"
    rf"(?:\.\d+)*(?:\.conv\d*)?{_WEIGHT}?$",
    re.IGNORECASE,
)
_UPSAMPLING = re.compile(r"up_?sampl\w*\.", re.IGNORECASE)
_PLAIN_NAME = re.compile(
    r"down_?sampl|patch_?(?:emb|merg|conv)|reduction|feature_extractor\.conv_layers|(?:^|\.)(?:sr|visual\.conv1)\.",
    re.IGNORECASE,
)
_SHORT_CONVOLUTION = re.compile(r"conv_?1d\.", re.IGNORECASE)
_BESIDE_NORM = re.compile(rf"(?P<before>(?:^|.*\.))conv(?P<number>\d*){_WEIGHT}$")
_PART_OF_SEQUENCE = re.compile(rf"(?P<before>(?:^|.*\.))(?P<index>\d+){_WEIGHT}$")


def may_be_convolution_weight(name: str, shape: Sequence[int]) -> bool:
    """Whether a tensor of three dimensions or more may be the weight of a convolution, by its name and shape.

    False for more than five dimensions. Otherwise the name must end as that of a layer's weight (`_LAYER_WEIGHT`), and
    no side of the kernel may exceed `MAX_KERNEL`. If the name contains `conv` or `downsample`, more endings are allowed
    (`_CONVOLUTION_WEIGHT`), and kernels of any size. A name without dots was chosen by the caller: it may end in
    anything.
    """
    if len(shape) > len(TRANSPOSED_AXES):
        return False
    if _CONVOLUTION_NAME.search(name):
        return "." not in name or _CONVOLUTION_WEIGHT.search(name) is not None
    may_be_layer_weight = "." not in name or _LAYER_WEIGHT.search(name) is not None
    return may_be_layer_weight and max(shape[2:]) <= MAX_KERNEL


def is_depthwise(shape: Sequence[int], groups: int, *, is_transposed: bool) -> bool:
    """Whether a convolution has several groups, each of one input, so that its sums run over its kernel alone.

    Args:
        shape: Of the weight: `[out, in / groups, *kernel]`, or `[in, out / groups, *kernel]` if it is transposed.
        groups: Number of groups.
        is_transposed: Whether the convolution is transposed.
    """
    return groups > 1 and (shape[0] == groups if is_transposed else shape[1] == 1)


def is_transposed_by_name(name: str) -> bool:
    """Whether a name is used only for transposed convolutions."""
    return _TRANSPOSED_NAME.search(name) is not None


def is_plain_or_transposed_by_name(name: str, shape: Sequence[int]) -> bool:
    """Whether a name is used for plain convolutions and also for transposed ones, such as `upsample.conv`.

    Anywhere inside an upsampling module, a kernel whose sides are all even may be that of a transposed convolution.
    """
    is_inside_upsampling = _has_even_kernel(shape) and _UPSAMPLING.search(name) is not None
    return is_inside_upsampling or _PLAIN_OR_TRANSPOSED_NAME.search(name) is not None


def is_plain_or_transposed_by_kernel(name: str, shape: Sequence[int]) -> bool:
    """Whether all sides of the kernel are even, as in most transposed convolutions and few plain ones.

    False for names of the plain convolutions that often have such kernels: those that reduce the resolution, and short
    depthwise ones over a sequence.
    """
    is_short = len(shape) == 3 and shape[1] == 1 and _SHORT_CONVOLUTION.search(name) is not None
    return _has_even_kernel(shape) and _PLAIN_NAME.search(name) is None and not is_short


def _has_even_kernel(shape: Sequence[int]) -> bool:
    return all(length % 2 == 0 for length in shape[2:])


def following_mean_name(name: str) -> str | None:
    """Return the name of the means of a batch norm that follows a layer in a sequence; None outside of a sequence.

    They have one entry for each output of the layer, as a bias has.
    """
    match = _PART_OF_SEQUENCE.match(name)
    return None if match is None else f"{match['before']}{int(match['index']) + 1}.running_mean"


def sibling_mean_name(name: str) -> str | None:
    """Return the name of the means of a batch norm beside a convolution, as `bn1` beside `conv1`; None for other names.

    The batch norm may come before the convolution; then they have one entry for each input.
    """
    match = _BESIDE_NORM.match(name)
    return None if match is None else f"{match['before']}bn{match['number']}.running_mean"


def bias_name(name: str) -> str:
    """Return the name of a layer's bias from that of its weight.

    A name that `_LAYER_WEIGHT` does not match is returned unchanged.
    """
    return _LAYER_WEIGHT.sub(".bias", name)


def kinds_by_bias(shape: Sequence[int], bias_shape: Sequence[int]) -> frozenset[Kind]:
    """Return the kinds of convolutions to which a weight may belong, by its shape and that of its bias.

    A bias has one entry for each output. All kinds are returned if `bias_shape` decides nothing: if it is `()`, since
    there is no bias; if it has several dimensions; or if its length fits no kind.

    Args:
        shape: Of the weight.
        bias_shape: Of its bias, or of something else with one entry for each output.
    """
    first, second = shape[:2]
    outputs = bias_shape[0] if len(bias_shape) == 1 else 0
    groups = outputs // second
    fits = {
        "plain": outputs == first,
        "transposed": outputs == second,
        "grouped transposed": groups > 1 and outputs == groups * second and first % groups == 0,
    }
    return frozenset(kind for kind in KINDS if fits[kind]) or frozenset(KINDS)
