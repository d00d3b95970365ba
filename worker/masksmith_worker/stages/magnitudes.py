"""Magnitudes of a shard's stored rows, computed while the shard is solved."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from masksmith_wire.dtypes import NUMPY_DTYPES, score_dtype, write_magnitudes


class MagnitudeRows:
    """The magnitudes `|w|` of a matrix in memory; a `RowSource` of `masksmith.solve`, for use by one thread.

    The solver asks for a few rows at a time and solves them while they are in the processor's cache. A call of
    `rows` may overwrite the rows that the previous call returned.

    Args:
        data: Little-endian bytes of the matrix, row by row.
        dtype: Dtype of the matrix: BF16, F16, F32 or F64.
        shape: `(rows, cols)`.
    """

    def __init__(self, data: bytes | memoryview, dtype: str, shape: tuple[int, int]) -> None:
        self.shape, self.dtype = shape, score_dtype(dtype)
        self._stored: npt.NDArray[Any] = np.frombuffer(data, NUMPY_DTYPES[dtype]).reshape(shape)
        self._buffer: npt.NDArray[Any] = np.empty(0, self.dtype)

    def rows(self, first: int, last: int) -> npt.NDArray[Any]:
        """Return the exact magnitudes of rows `first` to `last` (exclusive)."""
        stored = self._stored[first:last]
        if stored.size > len(self._buffer):
            self._buffer = np.empty(stored.size, self.dtype)
        magnitudes = self._buffer[: stored.size].reshape(stored.shape)
        write_magnitudes(stored, magnitudes)
        return magnitudes
