"""Dtypes that can be masked, as safetensors names them."""

from __future__ import annotations

from collections.abc import Mapping

ITEM_BYTES: Mapping[str, int] = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I8": 1, "U8": 1}
"""Bytes per entry of each dtype whose tensors can be masked."""

FLOAT_DTYPES = frozenset({"F64", "F32", "F16", "BF16"})
"""Dtypes of tensors that are masked by default; integers are masked only if `layers` has their full name."""


def dtype_reason(dtype: str, *, named: bool) -> str | None:
    """Return why a tensor of this dtype is not masked, or None.

    Args:
        dtype: The dtype, as safetensors names it.
        named: Whether `layers` has the tensor's full name; only then an integer tensor is masked.
    """
    if dtype not in ITEM_BYTES:
        return f"dtype {dtype} is not supported; use F64, F32, F16, BF16, I8 or U8"
    if named or dtype in FLOAT_DTYPES:
        return None
    return f"dtype {dtype} is not a float type; only its full name selects it"
