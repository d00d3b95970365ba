"""Reads the arrays that callers pass: returns dense numpy arrays or torch tensors, or raises an error with the reason.

Scores, masks, statistics, weights and Gram matrices are all read here, so that the same rules apply to all of them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, Literal

import numpy as np

DTYPES = ("float16", "bfloat16", "float32", "float64", "int8", "uint8", "bool")
"""Dtypes of weights, scores and masks."""
REAL = ("float8", "int", "uint")
"""Prefixes of the names of further accepted dtypes of real numbers; floats longer than 64 bits are not accepted."""
QUANTISED = ("qint8", "quint8", "qint32", "quint4x2", "quint2x4")
"""Dtypes of torch whose entries stand for other numbers, by a scale and a zero point."""
Accepted = Literal["weights", "real"]
"""Which dtypes are accepted: `weights` means those of `DTYPES`; `real` adds those of `REAL`."""


def read_array(values: Any, error: Callable[[str], Exception], accepted: Accepted = "weights") -> Any:
    """Return values as a numpy array or a torch tensor, which is detached; memory is shared where possible.

    Args:
        values: An array, a tensor, or nested lists.
        error: Function that makes the exception to raise, from a text with the reason.
        accepted: Which dtypes are accepted.

    Raises:
        Exception: The exception of `error`, if the values are not an array, are a masked array with hidden entries,
            have no data in memory, are not dense, are stored in another byte order, or have another dtype.
    """
    is_tensor = _is_tensor(values)
    array: Any = values if is_tensor else _read_numpy(values, error)
    reason = _dtype_reason(array.dtype, accepted) or (_torch_reason(array) if is_tensor else None)
    if reason is not None:
        raise error(reason)
    if not is_tensor:
        return array
    # Torch may negate a tensor lazily, by a flag; the numbers in its memory then have the opposite signs.
    return array.detach().resolve_neg() if array.is_neg() else array.detach()


def _is_tensor(values: object) -> bool:
    """Return whether values are a torch tensor, without importing torch."""
    # While another thread imports torch, the module is there, but may still lack the class.
    tensor_class = getattr(sys.modules.get("torch"), "Tensor", None)
    return tensor_class is not None and isinstance(values, tensor_class)


def _torch_reason(tensor: Any) -> str | None:
    """Return why the entries of a torch tensor cannot be read, or None."""
    import torch

    if torch.nn.parameter.is_lazy(tensor):
        return "the parameter is not initialised; call its module first"
    if tensor.is_nested:
        return "a nested tensor is not one array; pass its tensors one by one"
    if tensor.layout is not torch.strided:
        return f"layout {tensor.layout} is not dense; convert it with .to_dense()"
    if tensor.is_meta:
        return "a tensor on the device meta has no values; load them first"
    try:
        # Copies no entry; fails for subclasses without memory of their own, such as FakeTensor and MaskedTensor.
        tensor.detach()[None][:0].resolve_neg().float().cpu().numpy()
    except (RuntimeError, TypeError, ValueError) as refusal:
        return f"the entries of a {type(tensor).__name__} cannot be read: {_first_line(refusal)}"
    return None


def _read_numpy(values: Any, error: Callable[[str], Exception]) -> np.ndarray:
    if isinstance(values, np.ma.MaskedArray) and np.ma.is_masked(values):
        raise error("a masked array hides entries; replace them first, such as by .filled(0)")
    try:
        array = np.asarray(values)
    except (RuntimeError, TypeError, ValueError) as refusal:
        raise error(f"a {type(values).__name__} is not an array: {_first_line(refusal)}") from None
    if array.dtype.kind == "O" and not isinstance(values, np.ndarray):
        hint = "; pass its mask" if hasattr(values, "mask") else ""
        raise error(f"a {type(values).__name__} is not an array of numbers{hint}")
    return array


def _dtype_reason(dtype: Any, accepted: Accepted) -> str | None:
    """Return why a dtype of numpy or torch is not accepted, or None."""
    if isinstance(dtype, np.dtype) and not dtype.isnative:
        return f"dtype {dtype.str} has another byte order than this machine; use array.astype({dtype.name!r})"
    name = str(dtype).removeprefix("torch.")
    if name in DTYPES:
        return None
    if name in QUANTISED:
        return f"dtype {name} is quantised; use tensor.dequantize()"
    if accepted == "weights":
        return f"dtype {name} is not supported; use {', '.join(DTYPES[:-1])} or {DTYPES[-1]}"
    return None if name.startswith(REAL) else f"dtype {name} is not one of real numbers"


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
