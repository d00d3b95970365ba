"""Converts and checks the operands of scores: weights, statistics of their inputs, and tensors of a weight's shape."""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import numpy as np

from masksmith._arrays import read_array
from masksmith._errors import ScoresError
from masksmith._tensors import as_torch, is_torch as is_torch

MAX_DAMPING = 1e9
"""Largest damping, with which the Gram matrix hardly has an effect; with a much larger one, float32 overflows."""

MAX_ASYMMETRY = 1e-5
"""Largest accepted difference between an entry of a Gram matrix and its mirror image, relative to the largest entry.

The rounding of float32 sums can reach it.
"""


class StatisticError(ScoresError):
    """A statistic of a layer is of a wrong dtype or shape, or has values from which no score can be computed.

    `index` is that of the invalid entry in the statistic.
    """


class ScoreUnderflowError(ScoresError):
    """All scores underflow, or all values of a statistic do; see `underflow_allowed`."""


class StatisticUnderflowError(StatisticError, ScoreUnderflowError):
    """All values of a statistic underflow."""


_IS_UNDERFLOW_ALLOWED: ContextVar[bool] = ContextVar("_IS_UNDERFLOW_ALLOWED", default=False)


@contextmanager
def underflow_allowed() -> Iterator[None]:
    """Accept within the context that all scores underflow: those of a part may, although those of the tensor do not."""
    token = _IS_UNDERFLOW_ALLOWED.set(True)
    try:
        yield
    finally:
        _IS_UNDERFLOW_ALLOWED.reset(token)


def has_normal_score(scores: Any) -> bool:
    """Whether the largest score is a normal number, so that those that underflow hardly change what a mask keeps."""
    return 0 not in shape_of(scores) and float(scores.max()) >= float(np.finfo(dtype_name(scores)).tiny)


def read_weight(weight: Any, name: str | None = None) -> Any:
    """Return a weight as a numpy array or a torch tensor, detached from gradients.

    Raises:
        ScoresError: If it is no dense array of real numbers.
    """
    return read_array(weight, lambda reason: ScoresError(reason, name=name), "real")


def as_floats(weight: Any, name: str | None = None) -> Any:
    """Return a weight in float64 if it is float64, else in float32; raises like `read_weight`."""
    array = read_weight(weight, name)
    if is_torch(array):
        return array if str(array.dtype) in ("torch.float32", "torch.float64") else array.float()
    return array if array.dtype in (np.float32, np.float64) else array.astype(np.float32)


def read_statistic(values: Any, label: str, name: str | None) -> Any:
    """Return a statistic of real numbers as a numpy array or a torch tensor, detached from gradients.

    Args:
        values: The statistic.
        label: Its name in error messages.
        name: Name of the weight in error messages.

    Raises:
        StatisticError: If it is no dense array of real numbers.
    """
    return read_array(values, lambda reason: StatisticError(f"{label}: {reason}", name=name), "real")


def convert_like(values: Any, weight: Any) -> Any:
    """Convert an array to the library, device and dtype of a weight that `as_floats` returned."""
    if is_torch(weight):
        return as_torch(values).to(weight.device, weight.dtype)
    array = values.cpu().numpy() if is_torch(values) else values
    return array.astype(weight.dtype, copy=False)


def convert_statistic(values: Any, weight: Any, label: str, name: str | None) -> Any:
    """Convert a statistic as `convert_like` does, and check that it fits into the range of the weight's dtype.

    Raises:
        StatisticError: If a finite value becomes infinite, or all values become 0.
    """
    with np.errstate(over="ignore"):
        converted = convert_like(values, weight)
    if int(is_finite(converted).sum()) < int(is_finite(values).sum()):
        raise StatisticError(f"{label}: values overflow in {dtype_name(weight)}; scale the statistic", name=name)
    underflows = bool(_is_non_zero(values).any()) and not bool(_is_non_zero(converted).any())
    if underflows and not _IS_UNDERFLOW_ALLOWED.get():
        reason = f"{label}: all values underflow in {dtype_name(weight)}; scale the statistic"
        raise StatisticUnderflowError(reason, name=name)
    return converted


def check_range(scores: Any, *factors: Any, name: str | None) -> Any:
    """Return non-negative scores, computed from a product of factors; refuse overflow, and underflow of all scores.

    Underflow of some scores is no error: if the largest score is a normal number, a score that underflows hardly
    changes the sum that a mask keeps.

    Raises:
        ScoresError: If a score is infinite, but its factors are finite; or if all scores are 0 or subnormal, but at
            least one score has only factors that are not 0.
    """
    if 0 in shape_of(scores):
        return scores
    dtype, largest = dtype_name(scores), float(scores.max())
    scaled = "the weight" if len(factors) == 1 else "the weight or its statistic"
    if largest == math.inf:
        overflows = (scores == math.inf) & _all_factors(is_finite, factors)
        if bool(overflows.any()):
            raise ScoresError(f"the score overflows in {dtype}", _first_index(overflows), name, f"scale {scaled} down")
    # NaN, and infinity from an infinite factor, are refused elsewhere.
    is_checked = not _IS_UNDERFLOW_ALLOWED.get() and largest < float(np.finfo(dtype).tiny)
    if is_checked and bool(_all_factors(_is_non_zero, factors).any()):
        raise ScoreUnderflowError(f"all scores underflow in {dtype}", name=name, hint=f"scale {scaled} up")
    return scores


def _all_factors(test: Callable[[Any], Any], factors: Sequence[Any]) -> Any:
    """Return for each score whether all its factors pass a test."""
    return functools.reduce(operator.and_, map(test, factors))


def _is_non_zero(values: Any) -> Any:
    return values != 0


def is_finite(values: Any) -> Any:
    """Return for each value whether it is neither NaN nor infinite."""
    if not is_torch(values):
        return np.isfinite(values)
    import torch

    return torch.isfinite(values)


def _first_index(values: Any) -> tuple[int, ...]:
    """Return the index of the first entry that is not 0."""
    array = values.cpu().numpy() if is_torch(values) else values
    return tuple(int(position) for position in np.argwhere(array)[0])


def dtype_name(values: Any) -> str:
    """Return the name of an array's dtype without the library, such as `float32`."""
    return str(values.dtype).removeprefix("torch.")


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
        StatisticError: If the shapes differ, or the values do not fit into the range of the dtype.
    """
    other = read_statistic(other, label, name)
    if shape_of(other) != shape_of(weight):
        raise StatisticError(
            f"{label} has shape {list(shape_of(other))}, the weight has {list(shape_of(weight))}", name=name
        )
    return convert_statistic(other, weight, label, name)


def per_input(values: Any, weight: Any, label: str, name: str | None) -> Any:
    """Convert one non-negative value per input to `[1, in, *kernel]`, in the weight's library, device and dtype.

    Args:
        values: `[in, *kernel]`, the same flattened, or `[in]` (all positions of a kernel share the channel's value).
        weight: `[out, in, *kernel]`.
        label: Name of the values in error messages.
        name: Name of the weight in error messages.

    Raises:
        StatisticError: If there is not one value per input; if a value is negative or not finite; or if the values do
            not fit into the range of the dtype.
    """
    inputs = check_weight(weight, name)[1:]
    values = read_statistic(values, label, name)
    shape = shape_of(values)
    if shape == (inputs[0],):
        inputs = (inputs[0], *(1 for _ in inputs[1:]))
    elif shape not in (inputs, (math.prod(inputs),)):
        raise StatisticError(
            f"{label} has shape {list(shape)}, the weight {list(shape_of(weight))} has inputs {list(inputs)}", name=name
        )
    _check_values(values, label, name)
    return convert_statistic(values, weight, label, name).reshape(1, *inputs)


def flatten_inputs(weight: Any, name: str | None) -> Any:
    """Return a weight as `[out, in * prod(kernel)]`, in row-major order of its dimensions."""
    shape = check_weight(weight, name)
    return weight.reshape(shape[0], math.prod(shape[1:]))


def _check_values(values: Any, label: str, name: str | None) -> None:
    array = values.cpu().double().numpy() if is_torch(values) else values
    invalid = ~((array >= 0) & np.isfinite(array))
    if invalid.any():
        index = tuple(int(position) for position in np.argwhere(invalid)[0])
        raise StatisticError(f"{label} holds {array[index]:g}", index, name)
