"""Magnitudes of a checkpoint's weight, by rows or as a whole, read without torch."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from masksmith_wire.dtypes import NUMPY_DTYPES, score_dtype, write_magnitudes

from .tensors import Tensor, open_tensor_file, read_into

Floats = npt.NDArray[np.floating[Any]]


class ReusedBuffer:
    """A buffer for one array at a time, used again for the next: new memory pages cost as much as reading a file."""

    def __init__(self) -> None:
        self._bytes = np.empty(0, np.uint8)

    def array(self, entries: int, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        """Return a flat array with undefined values, in the memory of the previous array, which is no longer valid."""
        size = entries * np.dtype(dtype).itemsize
        if size > len(self._bytes):
            self._bytes = np.empty(size, np.uint8)
        return self._bytes[:size].view(dtype)


class ThreadBuffers(threading.local):
    """Two buffers for each thread: of stored entries and of their magnitudes."""

    def __init__(self) -> None:
        self.stored, self.values = ReusedBuffer(), ReusedBuffer()


class MagnitudeRows:
    """The magnitudes `|w|` of a stored matrix, read by rows when they are solved; a `RowSource` of `masksmith.solve`.

    A tensor's magnitudes are never in memory as a whole, and a band of rows is solved while the processor's cache still
    holds it. The rows that a thread reads overwrite those that it read before.

    Args:
        tensor: A matrix of bfloat16, float16, float32 or float64 that is stored, not computed from a scale.
        buffers: The buffers of each thread; several tensors may share them.
    """

    def __init__(self, tensor: Tensor, buffers: ThreadBuffers) -> None:
        if not tensor.is_stored:
            raise ValueError(f"the values of {tensor.name!r} are computed from its file's bytes")
        self._tensor, self._buffers = tensor, buffers
        self._stored_dtype = np.dtype(NUMPY_DTYPES[tensor.dtype])
        rows, cols = tensor.shape
        self.shape, self.dtype = (rows, cols), score_dtype(tensor.dtype)

    def rows(self, first: int, last: int) -> Floats:
        """Return the magnitudes of rows `first` to `last` (exclusive), exactly.

        Raises:
            InputError: If the file cannot be read, or became shorter.
        """
        cols, tensor = self.shape[1], self._tensor
        stored = self._buffers.stored.array((last - first) * cols, self._stored_dtype)
        with open_tensor_file(tensor) as file:
            read_into(stored.data.cast("B"), file, tensor.start + first * cols * stored.itemsize, tensor.early_end_text)
        values: Floats = self._buffers.values.array(len(stored), self.dtype)
        write_magnitudes(stored, values)
        return values.reshape(last - first, cols)


def magnitudes(tensor: Tensor, buffer: ReusedBuffer | None = None) -> Floats:
    """Read `|w|` of all entries, exactly; the stored bytes are not in memory as a whole.

    Args:
        tensor: A weight of bfloat16, float16, float32 or float64.
        buffer: The buffer that holds the array; default a new one.

    Returns:
        An array of the tensor's shape: float32 for bfloat16, and the tensor's own dtype otherwise.

    Raises:
        InputError: As `Tensor.pieces` does.
    """
    stored_dtype = np.dtype(NUMPY_DTYPES[tensor.dtype])
    value_dtype = np.dtype(np.float32) if tensor.dtype == "BF16" else stored_dtype
    values: Floats = (buffer or ReusedBuffer()).array(math.prod(tensor.shape), value_dtype)
    position = 0
    for entries in _entries(tensor, stored_dtype):
        write_magnitudes(entries, values[position : position + len(entries)])
        position += len(entries)
    return values.reshape(tensor.shape)


def _entries(tensor: Tensor, dtype: np.dtype[Any]) -> Iterator[npt.NDArray[Any]]:
    """Yield all entries in arrays; a piece of the file may end inside an entry, which belongs to the next array."""
    rest = b""
    for piece in tensor.pieces():
        data = rest + piece if rest else piece
        count = len(data) // dtype.itemsize
        rest = data[count * dtype.itemsize :]
        yield np.frombuffer(data, dtype, count)
