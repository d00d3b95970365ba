"""Converts and checks the operands of scores: weights, statistics of their inputs, and tensors of a weight's shape."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from masksmith._errors import ScoresError
from masksmith._tensors import is_torch as is_torch


def as_floats(tensor: Any) -> Any:
    """Return a numpy or torch tensor in float64 if it is float64, else in float32, detached from gradients."""
    if is_torch(tensor):
        detached = tensor.detach()
        return detached if str(detached.dtype) in ("torch.float32", "torch.float64") else detached.float()
    array = np.asarray(tensor)
    return array if array.dtype in (np.float32, np.float64) else array.astype(np.float32)


def convert_like(values: Any, weight: Any) -> Any:
    """Convert values to the library, device and dtype of a weight that `as_floats` returned."""
    if is_torch(weight):
        import torch

        return torch.as_tensor(values).detach().to(device=weight.device, dtype=weight.dtype)
    array = values.detach().cpu().numpy() if is_torch(values) else np.asarray(values)
    return array.astype(weight.dtype, copy=False)


def shape_of(tensor: Any) -> tuple[int, ...]:
    """Return a tensor's shape as a tuple of int."""
    return tuple(int(length) for length in tensor.shape)


def check_weight(weight: Any, name: str | None) -> tuple[int, ...]:
    """Check that a tensor is a weight `[out, in, *kernel]`; return its shape.

    Raises:
        ScoresError: If it has fewer than two dimensions, or a dimension of length 0.
    """
    shape = shape_of(weight)
    if len(shape) < 2 or 0 in shape:
        raise ScoresError(
            f"shape {list(shape)} is not that of a weight; expected [out, in] or [out, in, *kernel]", name=name
        )
    return shape


def convert_same_shape(other: Any, weight: Any, label: str, name: str | None) -> Any:
    """Convert a tensor of the weight's shape to the weight's library, device and dtype.

    Raises:
        ScoresError: If the shapes differ.
    """
    if shape_of(other) != shape_of(weight):
        raise ScoresError(
            f"{label} has shape {list(shape_of(other))}, the weight has {list(shape_of(weight))}", name=name
        )
    return convert_like(other, weight)


def per_input(values: Any, weight: Any, label: str, name: str | None) -> Any:
    """Convert one non-negative value per input to `[1, in, *kernel]`, in the weight's library, device and dtype.

    Args:
        values: `[in, *kernel]`, the same flattened, or `[in]` (all positions of a kernel share the channel's value).
        weight: `[out, in, *kernel]`.
        label: Name of the values in error messages.
        name: Name of the weight in error messages.

    Raises:
        ScoresError: If there is not one value per input, or a value is negative or not finite.
    """
    inputs = check_weight(weight, name)[1:]
    shape = shape_of(values)
    if shape == (inputs[0],):
        inputs = (inputs[0], *(1 for _ in inputs[1:]))
    elif shape not in (inputs, (math.prod(inputs),)):
        raise ScoresError(
            f"{label} has shape {list(shape)}, the weight {list(shape_of(weight))} has inputs {list(inputs)}", name=name
        )
    _check_values(values, label, name)
    return convert_like(values, weight).reshape(1, *inputs)


def flatten_inputs(weight: Any, name: str | None) -> Any:
    """Return a weight as `[out, in * prod(kernel)]`, in row-major order of its dimensions."""
    shape = check_weight(weight, name)
    return weight.reshape(shape[0], math.prod(shape[1:]))


def _check_values(values: Any, label: str, name: str | None) -> None:
    array = values.detach().cpu().double().numpy() if is_torch(values) else np.asarray(values)
    invalid = ~((array >= 0) & np.isfinite(array))
    if invalid.any():
        index = tuple(int(position) for position in np.argwhere(invalid)[0])
        raise ScoresError(f"{label} holds {array[index]:g}", index, name)
