"""Reads tensors of numpy and torch and `RowSource`s, and writes masks, as rows of a matrix, a few rows at a time."""

from __future__ import annotations

import math
from contextlib import suppress
from typing import Any, Literal, Protocol

import numpy as np

from ._arrays import read_array
from ._errors import ScoresError, SolverError
from ._panels import Bools, Matrix
from .patterns import Axis

View = Literal["channels-last", "flat"]
"""How a convolution `[out, in, *kernel]` becomes a matrix.

`channels-last`: `[out, prod(kernel) * in]`; `flat`: `[out, in * prod(kernel)]`.
"""

NUMPY_FLOATS = (np.dtype(np.float32), np.dtype(np.float64))
"""Dtypes of numpy that are read without a conversion."""


class RowSource(Protocol):
    """A matrix of scores whose rows are read when they are solved, for example from a file.

    Attributes:
        shape: `(rows, cols)`.
        dtype: float32 or float64, as numpy takes it.
    """

    shape: tuple[int, int]
    dtype: np.dtype[Any]

    def rows(self, first: int, last: int) -> Matrix:
        """Return rows `first` to `last` (exclusive); the next call in the same thread may overwrite them."""


def is_torch(tensor: object) -> bool:
    """Return whether `tensor` is a torch tensor, without importing torch; subclasses are recognised by `detach`."""
    return type(tensor).__module__.split(".", 1)[0] == "torch" or hasattr(tensor, "detach")


def as_torch(values: Any) -> Any:
    """Return a numpy array or torch tensor as a tensor without gradient; most arrays share their memory with it.

    An array that is not contiguous or is read-only, for which torch has no tensor, is copied.
    """
    if is_torch(values):
        return values.detach()
    import torch

    array = np.ascontiguousarray(values)
    return torch.from_numpy(array if array.flags.writeable else array.copy())


def check_has_zero(weight: Any, name: str | None) -> None:
    """Check that the dtype of a weight, numpy or torch, has a zero for the entries that are dropped.

    Raises:
        ScoresError: If it has none.
    """
    if str(weight.dtype).endswith("float8_e8m0fnu"):
        raise ScoresError(
            "the weight's dtype float8_e8m0fnu has no zero for dropped entries; use another dtype", name=name
        )


def with_zeros(tensor: Any, kept: Any, name: str | None = None) -> Any:
    """Return a copy of a torch tensor, in its memory format, with zeros in the entries that are not kept.

    Args:
        tensor: Tensor, from `read_array`, of a dtype that has a zero: its bits are then all 0.
        kept: Bool, on the tensor's device.
        name: Name of the tensor in the error message.

    Raises:
        ScoresError: As `check_has_zero`.
    """
    check_has_zero(tensor, name)
    import torch

    tensor = tensor.detach()
    # torch cannot fill floats of 8 bits, nor unsigned integers of more, so bits are filled.
    bits = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[tensor.element_size()]
    return tensor.view(bits).clone().masked_fill_(~kept, 0).view(tensor.dtype)


def is_row_source(tensor: object) -> bool:
    """Return whether a tensor is a `RowSource`."""
    if isinstance(tensor, np.ndarray) or is_torch(tensor):
        return False
    return callable(getattr(tensor, "rows", None)) and hasattr(tensor, "shape") and hasattr(tensor, "dtype")


def read_tensor(tensor: Any, name: str | None) -> Any:
    """Return a `RowSource` as it is, and anything else as `read_dense` does.

    Args:
        tensor: Scores, weight or mask.
        name: Its name in error messages.

    Raises:
        ScoresError: If it is no array of a supported dtype.
    """
    if is_row_source(tensor):
        return tensor
    return read_dense(tensor, name)


def read_dense(tensor: Any, name: str | None) -> Any:
    """Return nested lists, an array or a tensor as `read_array` does; raises like `read_tensor`."""
    return read_array(tensor, lambda reason: ScoresError(reason, name=name))


def equality_key(tensor: Any) -> object:
    """Return a key that equal tensors share, and that is cheap to compute: type, dtype, shape and a few entries.

    The key of a `RowSource` is its identity.
    """
    if is_row_source(tensor):
        return id(tensor)
    shape = tuple(int(length) for length in tensor.shape)
    entries = [tuple(place % length for length in shape) for place in range(8)] if math.prod(shape) else []
    return type(tensor), str(tensor.dtype), shape, tuple(float(tensor[entry]) for entry in entries if entry)


def are_equal(one: Any, other: Any) -> bool:
    """Return whether two tensors of one dtype and shape have equal entries, and torch tensors the same device."""
    if one is other:
        return True
    if is_torch(one):
        return bool(one.device == other.device and one.equal(other))
    return bool(np.array_equal(one, other))


class MatrixReader:
    """Reads a weight, its scores or a mask as the rows of a matrix of float32 or float64.

    Convolutions `[out, in, *kernel]` are read channel last, `[out, prod(kernel) * in]`, unless `view` is `flat`. With
    `axis="out"`, the rows of the transposed matrix are read.

    Args:
        tensor: numpy array or torch tensor of floats, 8-bit integers or bool, any strides, any device; or a
            `RowSource`.
        axis: The pattern's axis.
        name: Name of the tensor in error messages.
        view: How a convolution becomes a matrix.

    Attributes:
        name: Name of the tensor in error messages, or None.
        is_torch: Whether it is a torch tensor.
        is_double: Whether its dtype is float64.
        tensor_shape: Shape of the tensor.
        shape: Shape that patterns apply to: the tensor's, or `[out, in * prod(kernel)]` with the flat view.

    Raises:
        ScoresError: If `read_tensor` refuses the tensor; if the tensor is empty; or if a `RowSource` does not have two
            dimensions, or is to be read with `axis="out"`.
        SolverError: If the view is unknown.
    """

    def __init__(self, tensor: Any, axis: Axis = "in", name: str | None = None, view: View = "channels-last") -> None:
        if view not in ("channels-last", "flat"):
            raise SolverError(f"view={view!r} is not one of: channels-last, flat")
        self.name = name
        self._tensor: Any = read_tensor(tensor, name)
        self.is_torch = is_torch(self._tensor)
        self._has_rows = is_row_source(self._tensor)
        self.tensor_shape = tuple(int(length) for length in self._tensor.shape)
        _check_dtype_and_size(self._tensor, name)
        if self._has_rows and (axis == "out" or len(self.tensor_shape) != 2):
            raise ScoresError(
                "scores that are read by rows need two dimensions and a pattern along axis 'in'", name=name
            )
        self.is_double = _dtype_name(self._tensor).endswith("float64")
        self._axis = axis
        if view == "flat" and len(self.tensor_shape) > 2:
            self._tensor = self._tensor.reshape(self.tensor_shape[0], -1)
        self.shape = tuple(int(length) for length in self._tensor.shape)
        if axis == "out" and len(self.shape) >= 2:  # `pattern.grid` refuses fewer dimensions
            self._tensor = self._flatten(self._tensor).T

    def rows(self, first: int, last: int) -> Matrix:
        """Read rows `first` to `last` (exclusive) as a C-contiguous, writable matrix; a view if possible.

        Rows in read-only memory, such as those of a mapped file, are copied: numba would compile every kernel a second
        time for them, which takes much longer than the copy.
        """
        if self._has_rows:
            return self._read_rows(first, last)
        rows = self._tensor[first:last]
        if self._axis == "in":
            rows = self._flatten(rows)
        if self.is_torch:
            rows = rows.to(dtype=_torch_float(rows)).cpu().numpy()
        elif rows.dtype not in NUMPY_FLOATS:
            rows = rows.astype(np.float32)
        matrix: Matrix = np.require(rows, requirements=["C", "W"])
        return matrix

    def matrix(self) -> Any:
        """Return the whole matrix that `rows` reads, with the tensor's dtype and on its device; a view if possible."""
        if self._has_rows:
            return self._read_rows(0, self.shape[0])
        return self._tensor if self._axis == "out" else self._flatten(self._tensor)

    def holds_nan(self) -> bool:
        """Return whether an entry is NaN; False for bool, integers and `RowSource`s, whose entries are not read."""
        if self._has_rows or "float" not in str(self._tensor.dtype):
            return False
        return bool((self._tensor != self._tensor).any())

    def _read_rows(self, first: int, last: int) -> Matrix:
        rows: Matrix = np.require(self._tensor.rows(first, last), requirements=["C", "W"])
        if rows.shape != (last - first, self.shape[1]) or rows.dtype != self._tensor.dtype:
            expected = f"{_dtype_name(self._tensor)} [{last - first}, {self.shape[1]}]"
            raise ScoresError(
                f"rows({first}, {last}) returned {rows.dtype} {list(rows.shape)}, not {expected}", name=self.name
            )
        return rows

    def invalid_score_error(self, position: int, value: float) -> ScoresError:
        """Return the error for a NaN, infinite or negative score at a row-major position in the matrix."""
        if math.isnan(value):
            return ScoresError("NaN", self._index(position), self.name)
        if value == math.inf:
            return ScoresError("infinity", self._index(position), self.name)
        hint = "scores must not be negative; as scores of a weight use its magnitude (in Python, ms.magnitude)"
        return ScoresError(f"negative score {value:g}", self._index(position), self.name, hint)

    def _index(self, position: int) -> tuple[int, ...]:
        """Return the tensor's index of a row-major position in the matrix."""
        matrix_shape = (self.shape[0], math.prod(self.shape[1:]))
        row, col = np.unravel_index(position, matrix_shape if self._axis == "in" else matrix_shape[::-1])
        if self._axis == "out":
            row, col = col, row
        if len(self.shape) == 2:  # a matrix, or the flat view
            return int(row), *(int(k) for k in np.unravel_index(int(col), self.tensor_shape[1:]))
        *kernel, channel = np.unravel_index(int(col), (*self.shape[2:], self.shape[1]))
        return int(row), int(channel), *(int(k) for k in kernel)

    def _flatten(self, tensor: Any) -> Any:
        """Return the matrix `[out, prod(kernel) * in]` of a convolution, and a matrix as it is."""
        if tensor.ndim == 2:
            return tensor
        order = (0, *range(2, tensor.ndim), 1)
        channel_last = tensor.permute(order) if self.is_torch else tensor.transpose(order)
        return channel_last.reshape(tensor.shape[0], math.prod(tensor.shape[1:]))


class MaskWriter:
    """Collects the rows of a mask in the shape that patterns apply to (`MatrixReader.shape`)."""

    def __init__(self, shape: tuple[int, ...], axis: Axis = "in") -> None:
        self.mask: Bools = np.empty(shape, np.bool_)
        self._axis = axis

    def output(self, first: int, height: int, width: int) -> Bools | None:
        """Return rows `first` to `first + height` (exclusive) of the mask, for writing in place.

        None if these are not a matrix `[height, width]`, as for a convolution, or if `axis` is `out`.
        """
        rows = self.mask[first : first + height]
        return rows if self._axis == "in" and rows.shape == (height, width) else None

    def write(self, first: int, rows: Bools) -> None:
        """Write matrix rows from `first` on, in the orientation of `MatrixReader`."""
        if self._axis == "out":
            for number, row in enumerate(rows, first):
                self._column(number)[:] = row
            return
        shape = self.mask.shape
        channel_last = rows.reshape(len(rows), *shape[2:], shape[1])
        self.mask[first : first + len(rows)] = np.moveaxis(channel_last, -1, 1)

    def _column(self, number: int) -> Bools:
        """Return the entries `[out]` of the mask for a column of `[out, prod(kernel) * in]`, as a view."""
        shape = self.mask.shape
        *kernel, channel = (int(place) for place in np.unravel_index(number, (*shape[2:], shape[1])))
        column: Bools = np.moveaxis(self.mask, 0, -1)[(channel, *kernel)]
        return column


def like(mask: Bools, tensor: Any) -> Any:
    """Return a mask in the shape and library, and on the device, of `tensor`."""
    if not is_torch(tensor):
        return mask.reshape(np.shape(tensor))
    import torch

    return torch.from_numpy(mask.reshape(tuple(tensor.shape))).to(tensor.device)


def _check_dtype_and_size(tensor: Any, name: str | None) -> None:
    dtype = _dtype_name(tensor)
    if is_row_source(tensor) and dtype not in {"float64", "float32"}:
        raise ScoresError(f"scores that are read by rows are float32 or float64, not {dtype}", name=name)
    if 0 in tensor.shape:
        raise ScoresError(f"shape {list(tensor.shape)} is empty", name=name)


def _dtype_name(tensor: Any) -> str:
    """Return the name of a dtype; that of a `RowSource` may also be a class of numpy or a text, as numpy takes it."""
    dtype = tensor.dtype
    if is_row_source(tensor) and isinstance(dtype, (str, type)):
        with suppress(TypeError):
            dtype = np.dtype(dtype)
    return str(dtype).removeprefix("torch.")


def _torch_float(tensor: Any) -> Any:
    """Return the dtype that a torch tensor is read as: its own if float32 or float64, else float32."""
    import torch

    return tensor.dtype if tensor.dtype in (torch.float32, torch.float64) else torch.float32
