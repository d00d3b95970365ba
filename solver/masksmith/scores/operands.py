"""What the scores read: weights, and what belongs to their inputs, checked against each other."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from masksmith._errors import ScoresError
from masksmith._tensors import is_torch as is_torch


def as_floats(tensor: Any) -> Any:
    """Read a tensor in its own library: float64 stays, everything else becomes float32; gradients are left behind."""
    if is_torch(tensor):
        detached = tensor.detach()
        return detached if str(detached.dtype) in ("torch.float32", "torch.float64") else detached.float()
    array = np.asarray(tensor)
    return array if array.dtype in (np.float32, np.float64) else array.astype(np.float32)


def beside(values: Any, weight: Any) -> Any:
    """Bring values to the library, device and float type of a weight that `as_floats` has read."""
    if is_torch(weight):
        import torch

        return torch.as_tensor(values).detach().to(device=weight.device, dtype=weight.dtype)
    array = values.detach().cpu().numpy() if is_torch(values) else np.asarray(values)
    return array.astype(weight.dtype, copy=False)


def shape_of(tensor: Any) -> tuple[int, ...]:
    """Give a tensor's shape as a tuple of int."""
    return tuple(int(length) for length in tensor.shape)


def check_weight(weight: Any, name: str | None) -> tuple[int, ...]:
    """Give the shape of a weight `[out, in, *kernel]`.

    Raises:
        ScoresError: If it has fewer than two dimensions, or an empty one.
    """
    shape = shape_of(weight)
    if len(shape) < 2 or 0 in shape:
        raise ScoresError(f"shape {list(shape)} is no weight's; expected [out, in] or [out, in, *kernel]", name=name)
    return shape


def same_shape(other: Any, weight: Any, what: str, name: str | None) -> Any:
    """Bring a tensor of the weight's own shape beside it.

    Raises:
        ScoresError: If the shapes differ.
    """
    if shape_of(other) != shape_of(weight):
        raise ScoresError(
            f"{what} has shape {list(shape_of(other))}, the weight has {list(shape_of(weight))}", name=name
        )
    return beside(other, weight)


def per_input(values: Any, weight: Any, what: str, name: str | None) -> Any:
    """Bring one non-negative value an input beside the weight, `[1, in, *kernel]`.

    Args:
        values: `[in, *kernel]`, the same flattened, or `[in]` (each kernel place then shares its channel's value).
        weight: `[out, in, *kernel]`.
        what: What messages call the values.
        name: What messages call the weight.

    Raises:
        ScoresError: If there is not one value an input, or one is negative or no number.
    """
    inputs = check_weight(weight, name)[1:]
    found = shape_of(values)
    if found == (inputs[0],):
        inputs = (inputs[0], *(1 for _ in inputs[1:]))
    elif found not in (inputs, (math.prod(inputs),)):
        raise ScoresError(
            f"{what} has shape {list(found)}, the weight {list(shape_of(weight))} has inputs {list(inputs)}", name=name
        )
    _check_values(values, what, name)
    return beside(values, weight).reshape(1, *inputs)


def flat_inputs(weight: Any, name: str | None) -> Any:
    """View a weight as `[out, prod(inputs)]`, in its own memory order."""
    shape = check_weight(weight, name)
    return weight.reshape(shape[0], math.prod(shape[1:]))


def _check_values(values: Any, what: str, name: str | None) -> None:
    array = values.detach().cpu().double().numpy() if is_torch(values) else np.asarray(values)
    bad = ~((array >= 0) & np.isfinite(array))
    if bad.any():
        index = tuple(int(place) for place in np.argwhere(bad)[0])
        raise ScoresError(f"{what} holds {array[index]:g}", index, name)
