"""Reads stored numbers from their bytes: which of them are zero, and the values of 8-bit floats and of scales."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from masksmith_wire.dtypes import NUMPY_DTYPES, to_numpy

_UINT_BY_DTYPE_WITH_MINUS_ZERO: Mapping[str, str] = {
    "F64": "<u8", "F32": "<u4", "F16": "<u2", "BF16": "<u2", "F8_E4M3": "u1", "F8_E5M2": "u1",
}  # fmt: skip
"""For each dtype with a minus zero, the unsigned integer of numpy that has the same size."""

_UINT_BY_OTHER_DTYPE: Mapping[str, str] = {
    "I8": "u1", "U8": "u1", "I16": "<u2", "U16": "<u2", "I32": "<u4", "U32": "<u4", "I64": "<u8", "U64": "<u8",
    "BOOL": "u1", "F8_E4M3FNUZ": "u1", "F8_E5M2FNUZ": "u1",
}  # fmt: skip
"""The same for the other dtypes, in which a number is zero only if all of its bits are 0.

FNUZ floats belong to these: the bits that are minus zero in other floats are NaN in them.
"""

ENTRY_DTYPES = frozenset({**_UINT_BY_DTYPE_WITH_MINUS_ZERO, **_UINT_BY_OTHER_DTYPE})
"""Dtypes that `nonzero` reads."""

FLOAT8_DTYPES = frozenset({"F8_E4M3", "F8_E5M2", "F8_E4M3FNUZ", "F8_E5M2FNUZ"})

_EXPONENT_BITS: Mapping[str, int] = {"F8_E4M3": 4, "F8_E5M2": 5}

READABLE_FLOAT8 = frozenset(_EXPONENT_BITS)
"""Dtypes of 8-bit floats that `float8_values` reads."""

SCALE_DTYPES = frozenset({"F64", "F32", "F16", "BF16", "F8_E8M0"})
"""Dtypes that a scale may have."""


def nonzero(data: bytes | bytearray, dtype: str) -> npt.NDArray[np.bool_]:
    """Return which entries are not zero, from their little-endian bytes: False for minus zero, True for NaN."""
    if dtype not in _UINT_BY_DTYPE_WITH_MINUS_ZERO:
        return np.asarray(np.frombuffer(data, _UINT_BY_OTHER_DTYPE[dtype]) != 0)
    bits: npt.NDArray[Any] = np.frombuffer(data, _UINT_BY_DTYPE_WITH_MINUS_ZERO[dtype])
    bits_without_sign = bits.dtype.type(2 ** (8 * bits.itemsize - 1) - 1)
    return np.asarray((bits & bits_without_sign) != 0)


@cache
def float8_values(dtype: str) -> npt.NDArray[np.float32]:
    """Return the values of the bytes 0 to 255, for a dtype in `READABLE_FLOAT8`.

    E4M3 is the OCP format without infinities, whose NaN has all bits set, with either sign; E5M2 follows IEEE 754.
    """
    exponent_bits = _EXPONENT_BITS[dtype]
    mantissa_bits, bias = 7 - exponent_bits, 2 ** (exponent_bits - 1) - 1
    codes = np.arange(256)
    exponent, mantissa = (codes >> mantissa_bits) % 2**exponent_bits, codes % 2**mantissa_bits
    # With a stored exponent of 0, a number is subnormal: the 1 before the binary point is missing, and the number is
    # scaled as if the stored exponent were 1.
    fraction = mantissa / 2**mantissa_bits + (exponent > 0)
    values = np.ldexp(fraction, np.maximum(exponent, 1) - bias)
    if dtype == "F8_E4M3":
        values[codes % 128 == 127] = np.nan
    else:
        is_special = exponent == 2**exponent_bits - 1
        values[is_special] = np.where(mantissa[is_special] == 0, np.inf, np.nan)
    return np.asarray(np.where(codes < 128, values, -values), np.float32)


def scale_values(data: bytes | bytearray, dtype: str) -> npt.NDArray[np.float32]:
    """Return scales as float32, for a dtype in `SCALE_DTYPES`; E8M0 is `2^(byte - 127)`, and the byte 255 is NaN."""
    if dtype == "F8_E8M0":
        codes = np.frombuffer(data, np.uint8).astype(np.int32)
        return np.where(codes == 255, np.nan, np.ldexp(1.0, codes - 127)).astype(np.float32)
    count = len(data) // np.dtype(NUMPY_DTYPES[dtype]).itemsize
    return to_numpy(memoryview(data), dtype, (count,)).astype(np.float32)
