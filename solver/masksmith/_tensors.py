"""Tensors in, masks out: layers are read and written a few rows at a time, whatever their library, dtype or shape."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ._errors import ScoresError
from ._panels import Bools, Matrix
from .patterns import Axis

NUMPY_FLOATS = (np.dtype(np.float32), np.dtype(np.float64))


def is_torch(tensor: object) -> bool:
    """Whether `tensor` is a torch tensor, told without importing torch."""
    return type(tensor).__module__.split(".", 1)[0] == "torch" or hasattr(tensor, "detach")


def sample(tensor: Any) -> object:
    """Give dtype, shape and a few entries: equal wherever the tensors are."""
    shape = tuple(int(length) for length in tensor.shape)
    entries = [tuple(place % length for length in shape) for place in range(8)] if math.prod(shape) else []
    return type(tensor), str(tensor.dtype), shape, tuple(float(tensor[entry]) for entry in entries if entry)


def are_equal(one: Any, other: Any) -> bool:
    """Whether two tensors of one dtype and shape hold the same, as tied weights do; the same object always does."""
    if one is other:
        return True
    if is_torch(one):
        return bool(one.device == other.device and one.equal(other))
    return bool(np.array_equal(one, other))


class Source:
    """Reads a weight or its scores as the rows of a float32 or float64 matrix.

    Convolutions `[out, in, *kernel]` are read channel last, `[out, prod(kernel) * in]`; `axis="out"` transposes that.

    Args:
        tensor: numpy array or torch tensor of floats, 8-bit integers or bool, any strides, any device.
        axis: The pattern's axis.
        name: What messages call it.

    Raises:
        ScoresError: If the tensor is empty or of a dtype that holds no scores.
    """

    def __init__(self, tensor: Any, axis: Axis = "in", name: str | None = None) -> None:
        self.name = name
        self._torch = is_torch(tensor)
        self._tensor: Any = tensor.detach() if self._torch else np.asarray(tensor)
        self.shape = tuple(int(length) for length in self._tensor.shape)
        _check_dtype(self._tensor, name)
        self.is_double = str(self._tensor.dtype).endswith("float64")
        self._axis = axis
        if axis == "out":
            self._tensor = self._flatten(self._tensor).T

    @property
    def device(self) -> str:
        """Where the tensor lives."""
        return str(self._tensor.device) if self._torch else "cpu"

    def rows(self, first: int, last: int) -> Matrix:
        """Read rows as a C-contiguous matrix; a view where the tensor is one already."""
        part = self._tensor[first:last]
        if self._axis == "in":
            part = self._flatten(part)
        if self._torch:
            part = part.to(dtype=_torch_float(part)).cpu().numpy()
        elif part.dtype not in NUMPY_FLOATS:
            part = part.astype(np.float32)
        return np.ascontiguousarray(part)

    def matrix(self) -> Any:
        """Give the whole tensor as that matrix, of its own dtype and where it lives; a view where it can be one."""
        return self._tensor if self._axis == "out" else self._flatten(self._tensor)

    def _flatten(self, part: Any) -> Any:
        if part.ndim == 2:
            return part
        order = (0, *range(2, part.ndim), 1)
        moved = part.permute(order) if self._torch else part.transpose(order)
        return moved.reshape(part.shape[0], math.prod(part.shape[1:]))


class Sink:
    """Collects the rows of a mask in the shape, library and device of the weight."""

    def __init__(self, shape: tuple[int, ...], axis: Axis = "in") -> None:
        self.mask: Bools = np.empty(shape, np.bool_)
        self._axis = axis

    def room(self, first: int, height: int, width: int) -> Bools | None:
        """Give the place of matrix rows where it is such a matrix itself; what is put there need not be written."""
        part = self.mask[first : first + height]
        return part if self._axis == "in" and part.shape == (height, width) else None

    def write(self, first: int, rows: Bools) -> None:
        """Write matrix rows, starting at `first`, in the orientation that `Source` read them."""
        if self._axis == "out":
            for number, row in enumerate(rows, first):
                self._column(number)[:] = row
            return
        shape = self.mask.shape
        channel_last = rows.reshape(len(rows), *shape[2:], shape[1])
        self.mask[first : first + len(rows)] = np.moveaxis(channel_last, -1, 1)

    def _column(self, number: int) -> Bools:
        shape = self.mask.shape
        *kernel, channel = (int(place) for place in np.unravel_index(number, (*shape[2:], shape[1])))
        column: Bools = np.moveaxis(self.mask, 0, -1)[(channel, *kernel)]
        return column


def like(mask: Bools, tensor: Any) -> Any:
    """Hand a mask over in the library, and on the device, of `tensor`."""
    if not is_torch(tensor):
        return mask
    import torch

    return torch.from_numpy(mask).to(tensor.device)


def bool_source(mask: Any, shape: tuple[int, ...], axis: Axis, name: str) -> Source:
    """Read a mask-shaped argument row by row.

    Raises:
        ScoresError: If its shape is not the scores'.
    """
    found = tuple(int(length) for length in mask.shape)
    if found != shape:
        raise ScoresError(f"shape {list(found)} differs from the scores' {list(shape)}", name=name)
    return Source(mask, axis, name)


def _check_dtype(tensor: Any, name: str | None) -> None:
    word = str(tensor.dtype).removeprefix("torch.")
    if word not in {"float64", "float32", "float16", "bfloat16", "int8", "uint8", "bool"}:
        raise ScoresError(f"dtype {word} holds no scores; use a float (not fp8) or an 8-bit integer", name=name)
    if 0 in tensor.shape:
        raise ScoresError(f"shape {list(tensor.shape)} is empty", name=name)


def _torch_float(tensor: Any) -> Any:
    import torch

    return tensor.dtype if tensor.dtype in (torch.float32, torch.float64) else torch.float32


def bad_score(value: float) -> str:
    """Say what is wrong with a score."""
    if np.isnan(value):
        return "NaN"
    return "infinity" if np.isinf(value) and value > 0 else f"negative score {value:g}"


def flat_index(position: int, shape: tuple[int, ...], axis: Axis) -> tuple[int, ...]:
    """Give the tensor's own index of a row-major position in the matrix that `Source` reads."""
    matrix = (shape[0], math.prod(shape[1:]))
    row, col = np.unravel_index(position, matrix if axis == "in" else matrix[::-1])
    if axis == "out":
        row, col = col, row
    if len(shape) == 2:
        return int(row), int(col)
    *kernel, channel = np.unravel_index(int(col), (*shape[2:], shape[1]))
    return int(row), int(channel), *(int(k) for k in kernel)
