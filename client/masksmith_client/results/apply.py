"""Apply masks to a model: write its tensors with zeros in the pruned entries, in bounded memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from masksmith_client._errors import InputError
from masksmith_client.checkpoints.checkpoint import Checkpoint
from masksmith_client.checkpoints.copy import is_folder_output, write_copy
from masksmith_client.submission.files import read_path, weights_of
from masksmith_client.submission.streamed_tensor import PIECE_BYTES, StreamedTensor, flat_shape
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
    """Write a model with zeros in the pruned entries to one safetensors file, or to a directory; dtypes stay.

    Memory use is about half a MiB for any size of the model. A file is written atomically; a directory gets the model's
    own files, and calling again resumes a copy that was interrupted.

    Args:
        masks: Masks by the names of the tensors; tensors without a mask are copied.
        model: A safetensors file, a sharded checkpoint's index, or the directory of either.
        output: The `.safetensors` file to write, which may be the model itself, or a new or empty directory.
        on_bytes: Called with the number of bytes written after each piece.

    Raises:
        InputError: If a mask has no tensor or another shape, or entries of the dtype cannot be set to zero one by one.
    """
    checkpoint = Checkpoint.open(model)
    weights, names = weights_of(checkpoint.stored_order), _mask_names(masks, checkpoint)
    if is_folder_output(output, model):
        return _write_folder(checkpoint, masks, names, output, on_bytes)
    with atomic_write(output) as file:
        shapes = {weight.name: (weight.dtype, weight.shape) for weight in weights}
        file.write(build_header(shapes, checkpoint.metadata))
        return [_write(file, weight, masks, names.get(weight.name), on_bytes) for weight in weights]


def _write_folder(
    checkpoint: Checkpoint, masks: Masks, names: Mapping[str, str], output: Path, on_bytes: Callable[[int], None]
) -> list[AppliedTensor]:
    weights = {weight.name: weight for weight in weights_of(checkpoint.stored_order)}

    def values(name: str) -> Iterator[bytes | memoryview] | None:
        return (piece for piece, _ in _masked(weights[name], masks, names[name])) if name in names else None

    write_copy(checkpoint, output, values, masks.digest(), on_bytes)
    return [
        AppliedTensor(name, weight.dtype, weight.shape, _kept(masks, names[name]) if name in names else None)
        for name, weight in weights.items()
    ]


def model_bytes(model: Path) -> int:
    """Return the size of a model's data in bytes."""
    return sum(weight.data_bytes for weight in read_path(model))


def _mask_names(masks: Masks, checkpoint: Checkpoint) -> dict[str, str]:
    """Return the name of each masked tensor's mask; the masks of tied weights, which are one tensor, must be equal."""
    mask_of_tensor: dict[str, str] = {}
    for name in masks:
        tensor = checkpoint.find(name)
        if tensor is None:
            raise InputError(f"mask {name!r} has no tensor in {checkpoint.path}")
        if masks.shape(name) not in (tensor.shape, flat_shape(tensor.shape)):
            raise InputError(f"mask {name!r} has shape {list(masks.shape(name))}, the tensor has {list(tensor.shape)}")
        if DTYPE_BITS[tensor.dtype] % 8 or tensor.dtype == "F8_E8M0":
            raise InputError(f"{name!r} has dtype {tensor.dtype}, whose entries cannot be set to zero one by one")
        other = mask_of_tensor.setdefault(tensor.name, name)
        if other != name and not _are_equal(masks, other, name):
            raise InputError(f"masks {other!r} and {name!r} differ, and both are of {tensor.name!r}: they are tied")
    return mask_of_tensor


def _kept(masks: Masks, name: str) -> int:
    return sum(int(np.count_nonzero(masks.rows(name, *rows))) for rows in _row_ranges(masks.shape(name)))


def _are_equal(masks: Masks, first: str, second: str) -> bool:
    shape = masks.shape(first)
    return masks.shape(second) == shape and all(
        np.array_equal(masks.rows(first, *rows), masks.rows(second, *rows)) for rows in _row_ranges(shape)
    )


def _row_ranges(shape: tuple[int, ...]) -> Iterator[tuple[int, int]]:
    """Divide a mask, viewed as the matrix of its last dimension, into ranges of rows of about `PIECE_BYTES` entries."""
    rows, step = math.prod(shape[:-1]), max(1, PIECE_BYTES // max(1, (shape or (1,))[-1]))
    for first in range(0, rows, step):
        yield first, min(first + step, rows)


def _write(
    file: BinaryIO, weight: StreamedTensor, masks: Masks, mask_name: str | None, on_bytes: Callable[[int], None]
) -> AppliedTensor:
    kept = 0
    dense = ((piece, 0) for piece in weight.read())
    for piece, count in dense if mask_name is None else _masked(weight, masks, mask_name):
        file.write(piece)
        kept += count
        on_bytes(len(piece))
    return AppliedTensor(weight.name, weight.dtype, weight.shape, None if mask_name is None else kept)


def _masked(weight: StreamedTensor, masks: Masks, mask_name: str) -> Iterator[tuple[bytes | memoryview, int]]:
    """Yield a weight's bytes in pieces with pruned entries set to zero, and the number of entries kept in each."""
    item_bytes = DTYPE_BITS[weight.dtype] // 8
    cols = (masks.shape(mask_name) or (1,))[-1]
    first = 0
    for piece in _whole_items(weight.read(), item_bytes):
        entries = np.frombuffer(piece, np.uint8).reshape(-1, item_bytes).copy()
        stop = first + len(entries)
        row = first // cols
        mask = masks.rows(mask_name, row, -(-stop // cols)).reshape(-1)[first - row * cols : stop - row * cols]
        entries[~mask] = 0
        yield entries.data.cast("B"), int(np.count_nonzero(mask))
        first = stop


def _whole_items(pieces: Iterator[bytes | memoryview], item_bytes: int) -> Iterator[bytes]:
    """Realign pieces, so that no entry is split between two."""
    remainder = b""
    for piece in pieces:
        joined = remainder + bytes(piece)
        size = len(joined) // item_bytes * item_bytes
        remainder = joined[size:]
        if size:
            yield joined[:size]
