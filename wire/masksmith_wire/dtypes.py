"""Tensor bytes as numpy arrays, and magnitudes of entries; bfloat16, which numpy lacks, becomes float32 by a shift."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

NUMPY_DTYPES: Mapping[str, str] = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "I8": "<i1", "U8": "<u1"}
"""Numpy dtype in which stored entries are viewed; entries of BF16 are viewed as their 16 bits."""
WITHOUT_SIGN = np.uint16(0x7FFF)
"""All bits of a 16-bit float except its sign."""


def to_bytes(array: npt.NDArray[np.generic], dtype: str) -> bytes:
    """Convert an array to raw little-endian bytes; for BF16, float32 is truncated to its upper half, not rounded."""
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


def score_dtype(dtype: str) -> np.dtype[Any]:
    """Return the dtype of the magnitudes of a float tensor as scores: float64 for F64, float32 for all others."""
    return np.dtype(np.float64 if dtype == "F64" else np.float32)


def write_magnitudes(entries: npt.NDArray[Any], values: npt.NDArray[np.floating[Any]]) -> None:
    """Write the exact magnitudes of stored float entries.

    Args:
        entries: The stored entries; of bfloat16, their bits as uint16.
        values: Output of the same shape, in the dtype of `score_dtype`.
    """
    if entries.dtype == np.uint16:
        bits = values.view(np.uint32)
        np.bitwise_and(entries, WITHOUT_SIGN, out=bits, casting="same_kind")
        np.left_shift(bits, np.uint32(16), out=bits)
    else:
        np.absolute(entries, out=values, casting="same_kind")
