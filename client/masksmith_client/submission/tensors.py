"""Read weights from numpy arrays and torch tensors, without importing torch."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from masksmith_client._errors import InputError

from .streamed_tensor import PIECE_BYTES, Restore, StreamedTensor

# Keys are the names of dtypes that numpy, torch and ml_dtypes share.
SAFETENSORS_DTYPES: Mapping[str, str] = {
    "float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16",
    "int64": "I64", "int32": "I32", "int16": "I16", "int8": "I8",
    "uint64": "U64", "uint32": "U32", "uint16": "U16", "uint8": "U8", "bool": "BOOL",
    "complex64": "C64", "float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2",
}  # fmt: skip


def read_mapping(weights: Mapping[str, Any]) -> list[StreamedTensor]:
    """Return the tensors of a dict, such as a state dict; their bytes are read later.

    A value may be a torch tensor, a numpy array, an object with `__array__`, or a `StreamedTensor`, which is returned
    unchanged.

    Raises:
        InputError: If a name is empty or not a string, or a value has another type than these.
    """
    return [_weight(name, value) for name, value in weights.items()]


def is_torch(value: Any) -> bool:
    """Whether `value` is a torch tensor, without importing torch."""
    return any(base.__module__ == "torch" and base.__name__ == "Tensor" for base in type(value).__mro__)


def _weight(name: Any, value: Any) -> StreamedTensor:
    if not isinstance(name, str) or not name:
        raise InputError(f"names of weights must be non-empty strings, not {name!r}")
    if isinstance(value, StreamedTensor):
        return value
    if is_torch(value):
        return _torch_weight(name, value)
    if not isinstance(value, np.ndarray):
        if not hasattr(value, "__array__"):
            raise InputError(f"{name!r} is a {type(value).__name__}; expected a torch tensor or a numpy array")
        value = np.asarray(value)
    return _numpy_weight(name, value)


def _numpy_weight(name: str, array: npt.NDArray[Any]) -> StreamedTensor:
    dtype = array.dtype.name
    safetensors_dtype = SAFETENSORS_DTYPES.get(dtype)
    reason = None if safetensors_dtype else f"dtype {dtype} cannot be sent"
    return StreamedTensor(
        name, safetensors_dtype or dtype, array.shape, lambda: _numpy_pieces(array), unsupported_reason=reason
    )


def _torch_weight(name: str, tensor: Any) -> StreamedTensor:
    dtype = str(tensor.dtype).removeprefix("torch.")
    safetensors_dtype = SAFETENSORS_DTYPES.get(dtype)
    reason = _unsupported_reason(tensor) or (None if safetensors_dtype else f"dtype {dtype} cannot be sent")
    shape = tuple(int(length) for length in tensor.shape)
    read, restore = lambda: _torch_pieces(tensor), _restore_on(tensor)
    return StreamedTensor(name, safetensors_dtype or dtype, shape, read, restore, unsupported_reason=reason)


def has_memory(tensor: Any) -> bool:
    """Whether a torch tensor is dense and has entries, all of them in the memory of one device."""
    return _unsupported_reason(tensor) is None and tensor.numel() > 0


def _unsupported_reason(tensor: Any) -> str | None:
    if str(tensor.layout) != "torch.strided":
        return f"layout {tensor.layout} is not dense; pass .to_dense()"
    if tensor.device.type == "meta":
        return "it has no data (meta device)"
    if hasattr(tensor, "full_tensor"):
        return "it is distributed; pass .full_tensor()"
    # The address is 0 for classes that keep their values in other tensors, as quantised weights of torchao do.
    if tensor.numel() > 0 and tensor.data_ptr() == 0:
        kind = type(tensor).__name__
        return f"a {kind} keeps its values in other tensors; pass a plain tensor, such as .dequantize()"
    return None


def _torch_pieces(tensor: Any) -> Iterator[memoryview]:
    # torch reinterprets the data as bytes, since numpy has no bfloat16.
    flat = tensor.detach().cpu().resolve_conj().resolve_neg().contiguous().reshape(-1)
    return _slices(flat.view(sys.modules["torch"].uint8).numpy().data)


def _numpy_pieces(array: npt.NDArray[Any]) -> Iterator[memoryview]:
    if array.dtype.byteorder == ">" or (array.dtype.byteorder == "=" and sys.byteorder == "big"):
        array = array.astype(array.dtype.newbyteorder("<"))
    return _slices(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)


def _slices(data: memoryview) -> Iterator[memoryview]:
    for start in range(0, len(data), PIECE_BYTES):
        yield data[start : start + PIECE_BYTES]


def _restore_on(tensor: Any) -> Restore:
    """Return the function that converts an array to a torch tensor on the device of `tensor`."""
    device = tensor.device

    def restore(array: npt.NDArray[Any]) -> Any:
        return sys.modules["torch"].from_numpy(array).to(device)

    return restore
