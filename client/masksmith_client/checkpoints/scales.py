"""Finds the scales of a checkpoint of 8-bit floats: the tensor of each weight's scales, and which entries share one.

Source: `weight_scale_inv` and `weight_block_size` as in DeepSeek-V3, `weight_scale` and `config_groups` as in
compressed-tensors. The stored numbers are multiplied by `weight_scale_inv`, too, although it is named an inverse.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from masksmith_client._errors import InputError

from .quantised import check_zero_point, quantisation_settings
from .scaled_tensor import Scale
from .stored_values import FLOAT8_DTYPES, READABLE_FLOAT8, SCALE_DTYPES
from .tensors import Tensor

SUFFIXES = ("_scale_inv", "_scale")
"""The name of a scale is the name of its weight with one of these suffixes."""

TENSOR, CHANNEL = "one for the tensor", "one for each row"
"""Names of the strategies without blocks, as messages state them."""


@dataclass(frozen=True, slots=True)
class _Strategy:
    """How many scales each matrix of a weight has: one, one for each row, or one for each block.

    Attributes:
        name: Description for messages: `TENSOR`, `CHANNEL`, or the size of the blocks.
        block: Rows and columns of a block; None for the other two strategies.
    """

    name: str
    block: tuple[int, int] | None = None

    def block_of(self, rows: int, cols: int) -> tuple[int, int]:
        """Return the rows and columns of a block in a matrix of this size; the entries of a block share one scale.

        A block that is larger than the matrix is cropped to it, since `ScaledTensor.pieces` repeats a scale for each
        column of its block.
        """
        height, width = self.block or (rows if self.name == TENSOR else 1, cols)
        # At least 1, also for an empty matrix, since rows and columns are divided by it.
        return max(1, min(height, rows)), max(1, min(width, cols))

    def shapes(self, shape: Sequence[int]) -> list[tuple[int, ...]]:
        """Return the shapes that the scales of a weight of this shape may have."""
        *stack, rows, cols = shape
        if self.block is None:
            blocks_down, blocks_across = 1 if self.name == TENSOR else rows, 1
        else:
            blocks_down, blocks_across = -(-rows // self.block[0]), -(-cols // self.block[1])
        shapes = [(*stack, blocks_down, blocks_across)]
        if self.name == CHANNEL:
            shapes.append((*stack, rows))
        if self.name == TENSOR:
            shapes.append(tuple(stack))
            if math.prod(stack) == 1:
                shapes.append((1,))
        return shapes


def find_scales(config: Mapping[str, Any] | None, tensors: Mapping[str, Tensor]) -> dict[str, Scale]:
    """Return the scale of each weight of 8-bit floats and two or more dimensions, by the weight's name.

    Args:
        config: The model's `config.json`. The quantisation that it names must be one that is read through scales.
        tensors: All tensors of the checkpoint, by name.

    Raises:
        InputError: If the config describes no scales, or scales that are not read; if a weight has no scale, or has a
            dtype that is not read; if a scale has another shape than the config says, or a dtype that is not read; if
            there is a scale for a weight that is not of 8-bit floats; or if a zero point is not zero.
    """
    strategies = _strategies(quantisation_settings(config))
    for name, tensor in tensors.items():
        scale = scale_of(name, tensors)
        if scale is not None and len(tensor.shape) >= 2 and tensor.dtype not in FLOAT8_DTYPES:
            raise InputError(
                f"{name!r} is {tensor.dtype}, and there is a scale {scale.name!r}, which is for 8-bit floats: whether "
                f"it is applied already is unknown; remove the scale, or download the checkpoint again"
            )
    return {
        name: _scale(tensor, tensors, strategies)
        for name, tensor in tensors.items()
        if tensor.dtype in FLOAT8_DTYPES and len(tensor.shape) >= 2 and not name.endswith((*SUFFIXES, "_zero_point"))
    }


def scale_of(name: str, tensors: Mapping[str, Tensor]) -> Tensor | None:
    """Return the tensor whose name makes it the scale of the tensor `name`; None if there is none."""
    return next((tensors[name + suffix] for suffix in SUFFIXES if name + suffix in tensors), None)


def weight_of_scale(name: str, tensors: Mapping[str, Tensor]) -> str | None:
    """Return the name of the tensor whose scale is the tensor `name`, by their names; None if `name` is no scale."""
    weight_names = (name.removesuffix(suffix) for suffix in SUFFIXES if name.endswith(suffix))
    return next((weight_name for weight_name in weight_names if weight_name in tensors), None)


def _scale(weight: Tensor, tensors: Mapping[str, Tensor], strategies: Sequence[_Strategy]) -> Scale:
    """Return the scale of a weight, with the blocks of the first strategy that allows the scale's shape."""
    name = weight.name
    if weight.dtype not in READABLE_FLOAT8:
        raise InputError(f"{name!r} is {weight.dtype}; of 8-bit floats only F8_E4M3 and F8_E5M2 are read")
    scale = scale_of(name, tensors)
    if scale is None:
        raise InputError(
            f"{name!r} is {weight.dtype} and has no scale: there is neither {name + SUFFIXES[0]!r} nor "
            f"{name + SUFFIXES[1]!r}; download the checkpoint completely"
        )
    if scale.dtype not in SCALE_DTYPES:
        raise InputError(
            f"the scale {scale.name!r} is {scale.dtype}; expected one of {', '.join(sorted(SCALE_DTYPES))}"
        )
    check_zero_point(name, tensors)
    rows, cols = weight.shape[-2:]
    for strategy in strategies:
        if scale.shape in strategy.shapes(weight.shape):
            return Scale(scale, strategy.block_of(rows, cols))
    expected = "; ".join(
        f"{' or '.join(str(list(shape)) for shape in strategy.shapes(weight.shape))} ({strategy.name})"
        for strategy in strategies
    )
    raise InputError(
        f"the scale {scale.name!r} has the shape {list(scale.shape)}, and {name!r} has {list(weight.shape)}: the "
        f"config says {expected}"
    )


def _strategies(settings: Mapping[str, Any]) -> list[_Strategy]:
    """Return the strategies that the settings of a quantisation allow; a weight may have any of them."""
    if settings.get("quant_method") == "fp8":
        if settings.get("weight_block_size") is None:
            return [_Strategy(TENSOR), _Strategy(CHANNEL)]
        return [_block_strategy(settings["weight_block_size"], "weight_block_size")]
    groups = settings.get("config_groups")
    members = list(groups.values()) if isinstance(groups, Mapping) else []
    strategies = [_group_strategy(group.get("weights") if isinstance(group, Mapping) else None) for group in members]
    if not strategies:
        raise InputError("config.json says nothing about the scales: its quantization_config has no config_groups")
    return list(dict.fromkeys(strategies))


def _group_strategy(weights: Any) -> _Strategy:
    arguments = weights if isinstance(weights, Mapping) else {}
    strategy = arguments.get("strategy")
    if (arguments.get("type"), arguments.get("num_bits")) != ("float", 8):
        raise InputError(
            f"config.json says that weights are {arguments.get('type')} of {arguments.get('num_bits')} bits; only "
            f"floats of 8 bits are read through their scales"
        )
    if strategy == "block":
        return _block_strategy(arguments.get("block_structure"), "block_structure")
    if strategy not in ("tensor", "channel"):
        raise InputError(f"config.json says that scales are by {strategy!r}; expected tensor, channel or block")
    return _Strategy(TENSOR if strategy == "tensor" else CHANNEL)


def _block_strategy(value: Any, key: str) -> _Strategy:
    """Return the strategy of blocks whose size the config gives under `key`."""
    if not isinstance(value, Sequence) or len(value) != 2 or not all(type(size) is int and size > 0 for size in value):
        raise InputError(f"config.json says {key}={value!r}; expected two positive numbers, such as [128, 128]")
    height, width = value
    return _Strategy(f"blocks of {height}x{width}", (height, width))
