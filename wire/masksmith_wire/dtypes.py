"""Conversion between tensor bytes and numpy arrays; bfloat16, which numpy lacks, becomes float32 by a bit shift."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

NUMPY_DTYPES: Mapping[str, str] = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "I8": "<i1", "U8": "<u1"}


def to_bytes(array: npt.NDArray[np.generic], dtype: str) -> bytes:
    """Convert an array to raw little-endian bytes. Bfloat16 is the upper half of float32, without rounding."""
    if dtype == "BF16":
        bits = np.ascontiguousarray(array, "<f4").view("<u4") >> np.uint32(16)
        return bits.astype("<u2").tobytes()
    return np.ascontiguousarray(array, NUMPY_DTYPES[dtype]).tobytes()


def to_numpy(data: bytes | memoryview, dtype: str, shape: tuple[int, ...]) -> npt.NDArray[np.generic]:
    """View raw little-endian bytes as an array; bfloat16 becomes float32 (a copy), exactly."""
    array = np.frombuffer(data, dtype=NUMPY_DTYPES[dtype]).reshape(shape)
    if dtype == "BF16":
        bits = array.astype(np.uint32)
        bits <<= np.uint32(16)
        return bits.view(np.float32)
    return array
