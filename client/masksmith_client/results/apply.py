"""Apply masks to a model: write its tensors with zeros in the pruned entries, in bounded memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from masksmith_client._errors import InputError
from masksmith_client.submission.files import read_metadata, read_path
from masksmith_client.submission.streamed_tensor import StreamedTensor, flat_shape
from masksmith_wire.headers import DTYPE_BITS, build_header

from .atomic_write import atomic_write
from .masks import Masks


@dataclass(frozen=True, slots=True)
class AppliedTensor:
    """A tensor of the output file; `kept` is the number of entries kept, None if it was copied without a mask."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    kept: int | None

    @property
    def density(self) -> float | None:
        """Share of the entries kept; None without a mask."""
        return None if self.kept is None else self.kept / math.prod(self.shape)


def apply_masks(
    masks: Masks, model: Path, output: Path, on_bytes: Callable[[int], None] = lambda count: None
) -> list[AppliedTensor]:
    """Write a model's tensors with zeros in the pruned entries to one safetensors file; dtypes stay.

    Memory use is about half a MiB for any size of the model. The output is written atomically.

    Args:
        masks: Masks by the names of the tensors; tensors without a mask are copied.
        model: A safetensors file, a sharded checkpoint's index, or the directory of either.
        output: The file to write; it may be the model itself.
        on_bytes: Called with the number of bytes written after each piece.

    Raises:
        InputError: If a mask has no tensor or another shape, or the entries of the dtype cannot be set to zero singly.
    """
    weights = read_path(model)
    _check(masks, weights, model)
    with atomic_write(output) as file:
        shapes = {weight.name: (weight.dtype, weight.shape) for weight in weights}
        file.write(build_header(shapes, read_metadata(model)))
        return [_write(file, weight, masks, on_bytes) for weight in weights]


def model_bytes(model: Path) -> int:
    """Return the size of a model's data in bytes."""
    return sum(weight.data_bytes for weight in read_path(model))


def _check(masks: Masks, weights: list[StreamedTensor], model: Path) -> None:
    by_name = {weight.name: weight for weight in weights}
    for name in masks:
        if name not in by_name:
            raise InputError(f"mask {name!r} has no tensor in {model}")
        weight = by_name[name]
        if masks.shape(name) not in (weight.shape, flat_shape(weight.shape)):
            raise InputError(f"mask {name!r} has shape {list(masks.shape(name))}, the tensor has {list(weight.shape)}")
        if DTYPE_BITS[weight.dtype] % 8 or weight.dtype == "F8_E8M0":
            raise InputError(f"{name!r} has dtype {weight.dtype}, whose entries cannot be set to zero singly")


def _write(file: BinaryIO, weight: StreamedTensor, masks: Masks, on_bytes: Callable[[int], None]) -> AppliedTensor:
    kept = 0
    masked = weight.name in masks
    for piece, count in _masked(weight, masks) if masked else ((piece, 0) for piece in weight.read()):
        file.write(piece)
        kept += count
        on_bytes(len(piece))
    return AppliedTensor(weight.name, weight.dtype, weight.shape, kept if masked else None)


def _masked(weight: StreamedTensor, masks: Masks) -> Iterator[tuple[bytes | memoryview, int]]:
    """Yield a weight's bytes in pieces with pruned entries set to zero, and the number of entries kept in each."""
    item_bytes = DTYPE_BITS[weight.dtype] // 8
    cols = (masks.shape(weight.name) or (1,))[-1]
    first = 0
    for piece in _whole_items(weight.read(), item_bytes):
        entries = np.frombuffer(piece, np.uint8).reshape(-1, item_bytes).copy()
        last = first + len(entries)
        row = first // cols
        mask = masks.rows(weight.name, row, -(-last // cols)).reshape(-1)[first - row * cols : last - row * cols]
        entries[~mask] = 0
        yield entries.data.cast("B"), int(np.count_nonzero(mask))
        first = last


def _whole_items(pieces: Iterator[bytes | memoryview], item_bytes: int) -> Iterator[bytes]:
    """Realign pieces, so that no entry is split between two."""
    remainder = b""
    for piece in pieces:
        joined = remainder + bytes(piece)
        size = len(joined) // item_bytes * item_bytes
        remainder = joined[size:]
        if size:
            yield joined[:size]
