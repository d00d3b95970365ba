"""Reads which entries of a stored tensor are not zero, a band (some consecutive rows) at a time."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from masksmith_client._errors import InputError
from masksmith_client.submission.streamed_tensor import BoolMask
from masksmith_wire.headers import DTYPE_BITS

from .stored_values import ENTRY_DTYPES, nonzero
from .tensors import Tensor, read_range

BAND_ENTRIES = 2**18
"""Maximum number of entries of a band, unless one row has more."""


def check_countable(tensor: Tensor) -> None:
    """Refuse a tensor that has no dimension, or whose zeros cannot be recognised by their bytes.

    Raises:
        InputError: If it is such a tensor; the message names dtype and shape.
    """
    if tensor.dtype not in ENTRY_DTYPES or not tensor.shape:
        raise InputError(
            f"{tensor.name!r} is {tensor.dtype} of shape {list(tensor.shape)}, whose zeros are not counted; expected "
            f"at least one dimension and one of the dtypes {', '.join(sorted(ENTRY_DTYPES))}"
        )


def nonzero_bands(tensor: Tensor) -> Iterator[tuple[int, BoolMask]]:
    """Yield the first row of each band, and which entries of the band are not zero.

    The tensor is viewed as the matrix `[prod(shape[:-1]), shape[-1]]`.

    Raises:
        InputError: If the file cannot be read, or ends early.
    """
    item_bytes, cols = DTYPE_BITS[tensor.dtype] // 8, tensor.shape[-1]
    rows = math.prod(tensor.shape[:-1]) if cols else 0
    step = max(1, BAND_ENTRIES // max(1, cols))
    try:
        with tensor.file.open("rb", buffering=0) as file:
            for first in range(0, rows, step):
                end = min(first + step, rows)
                start, stop = (tensor.start + row * cols * item_bytes for row in (first, end))
                data = b"".join(read_range(file, start, stop, f"{tensor.file} ended inside {tensor.name!r}"))
                yield first, nonzero(data, tensor.dtype).reshape(end - first, cols)
    except OSError as error:
        raise InputError(f"{tensor.file} cannot be read: {error.strerror}") from None


def nonzeros(tensor: Tensor) -> BoolMask:
    """Return which entries of a tensor are not zero, in its shape: one byte for each entry.

    Raises:
        InputError: As `nonzero_bands` does.
    """
    entries = np.zeros((math.prod(tensor.shape[:-1]), tensor.shape[-1]), np.bool_)
    for first, band in nonzero_bands(tensor):
        entries[first : first + len(band)] = band
    return entries.reshape(tensor.shape)
