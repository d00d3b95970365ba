"""Reads a stored tensor a chunk of rows at a time, and sets to zero each entry that its packed mask drops."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

from masksmith_wire.headers import DTYPE_BITS
from masksmith_wire.masks import masked_bytes

from .tensors import Tensor, read_into

CHUNK_ENTRIES = 2**20
"""Largest number of entries of a chunk, unless a single row is longer."""


def masked_pieces(
    tensor: Tensor, packed_mask: npt.NDArray[np.uint8], on_stored: Callable[[memoryview], None] = lambda data: None
) -> Iterator[memoryview]:
    """Yield a tensor's bytes with zeros in the dropped entries, in chunks; each chunk is overwritten by the next one.

    Args:
        tensor: A tensor of at least one dimension, whose entries are whole bytes.
        packed_mask: Its mask, packed along its last axis.
        on_stored: Called with each chunk as it is stored, before entries are set to zero.

    Raises:
        InputError: If the file became shorter.
        OSError: If the file cannot be read.
    """
    item_bytes, cols = DTYPE_BITS[tensor.dtype] // 8, tensor.shape[-1]
    rows = math.prod(tensor.shape[:-1])
    packed_mask = packed_mask.reshape(rows, -1)
    step = max(1, CHUNK_ENTRIES // max(1, cols))
    buffer = memoryview(bytearray(min(step, rows) * cols * item_bytes))
    with tensor.file.open("rb", buffering=0) as file:
        for first in range(0, rows, step):
            last = min(first + step, rows)
            data = buffer[: (last - first) * cols * item_bytes]
            start = tensor.start + first * cols * item_bytes
            read_into(data, file, start, tensor.early_end_text)
            on_stored(data)
            yield masked_bytes(data, packed_mask[first:last], item_bytes, cols)
