"""Magnitudes of a stored weight, read piece by piece, without torch."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from masksmith_wire.dtypes import NUMPY_DTYPES

from .tensors import Tensor

Floats = npt.NDArray[np.floating[Any]]

WITHOUT_SIGN = np.uint16(0x7FFF)
"""All bits of a 16-bit float except its sign."""


class ReusedBuffer:
    """A buffer for one array at a time, used again for each tensor: new memory pages cost as much as reading a file."""

    def __init__(self) -> None:
        self._bytes = np.empty(0, np.uint8)

    def array(self, entries: int, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        """Return an array, whose values are undefined; it overwrites the previous one."""
        size = entries * np.dtype(dtype).itemsize
        if size > len(self._bytes):
            self._bytes = np.empty(size, np.uint8)
        return self._bytes[:size].view(dtype)


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
    is_bfloat16 = tensor.dtype == "BF16"
    stored = np.dtype("<u2") if is_bfloat16 else np.dtype(NUMPY_DTYPES[tensor.dtype])
    values: Floats = (buffer or ReusedBuffer()).array(math.prod(tensor.shape), np.float32 if is_bfloat16 else stored)
    first = 0
    for entries in _entries(tensor, stored):
        part = values[first : first + len(entries)]
        if is_bfloat16:
            bits = part.view(np.uint32)
            np.bitwise_and(entries, WITHOUT_SIGN, out=bits, casting="same_kind")
            np.left_shift(bits, np.uint32(16), out=bits)
        else:
            np.absolute(entries, out=part)
        first += len(entries)
    return values.reshape(tensor.shape)


def _entries(tensor: Tensor, dtype: np.dtype[Any]) -> Iterator[npt.NDArray[Any]]:
    """Yield all entries; a piece may end inside one."""
    rest = b""
    for piece in tensor.pieces():
        data = rest + piece if rest else piece
        whole = len(data) // dtype.itemsize * dtype.itemsize
        rest = data[whole:]
        yield np.frombuffer(data, dtype, whole // dtype.itemsize)
