"""Masks onto a model: dense weights with zeros where the masks drop, written tensor by tensor, a piece at a time."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from masksmith_client._errors import InputError
from masksmith_client.checkpoints.checkpoint import Checkpoint
from masksmith_client.submission.files import read_path, weights_of
from masksmith_client.submission.weights import PIECE_BYTES, Weight, flat_shape
from masksmith_wire.headers import DTYPE_BITS, build_header

from .masks import Masks
from .whole_file import whole_file


@dataclass(frozen=True, slots=True)
class Applied:
    """One tensor of the output: entries kept, or None where it has no mask and was copied unchanged."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    kept: int | None

    @property
    def density(self) -> float | None:
        """Share of the entries kept."""
        return None if self.kept is None else self.kept / math.prod(self.shape)


def apply_masks(
    masks: Masks, model: Path, output: Path, on_bytes: Callable[[int], None] = lambda count: None
) -> list[Applied]:
    """Write a model's tensors with zeros where their masks drop them, in their own dtypes, to one safetensors file.

    Memory is bounded by a piece of half a MiB, whatever the size of the model; the output appears whole or not at all.

    Args:
        masks: Masks by the names of the tensors; tensors without one are copied.
        model: A safetensors file, a sharded checkpoint's index, or the directory of either.
        output: The file to write; the model itself may be named.
        on_bytes: Called with the bytes written after each piece.

    Raises:
        InputError: If a mask has no tensor or another shape than it, or its dtype cannot hold zeros entry by entry.
    """
    checkpoint = Checkpoint.open(model)
    weights, names = weights_of(checkpoint.stored_order), _mask_names(masks, checkpoint)
    with whole_file(output) as file:
        shapes = {weight.name: (weight.dtype, weight.shape) for weight in weights}
        file.write(build_header(shapes, checkpoint.metadata))
        return [_write(file, weight, masks, names.get(weight.name), on_bytes) for weight in weights]


def model_bytes(model: Path) -> int:
    """Give the size of a model's data."""
    return sum(weight.data_bytes for weight in read_path(model))


def _mask_names(masks: Masks, checkpoint: Checkpoint) -> dict[str, str]:
    """Find the tensor of every mask; tied weights have one tensor, and their masks must be equal."""
    names: dict[str, str] = {}
    for name in masks:
        tensor = checkpoint.find(name)
        if tensor is None:
            raise InputError(f"mask {name!r} has no tensor in {checkpoint.path}")
        if masks.shape(name) not in (tensor.shape, flat_shape(tensor.shape)):
            raise InputError(f"mask {name!r} has shape {list(masks.shape(name))}, the tensor has {list(tensor.shape)}")
        if DTYPE_BITS[tensor.dtype] % 8 or tensor.dtype == "F8_E8M0":
            raise InputError(f"{name!r} has dtype {tensor.dtype}, whose entries cannot be zeroed one by one")
        other = names.setdefault(tensor.name, name)
        if other != name and not _are_equal(masks, other, name):
            raise InputError(f"masks {other!r} and {name!r} differ, and both are of {tensor.name!r}: they are tied")
    return names


def _are_equal(masks: Masks, first: str, second: str) -> bool:
    shape = masks.shape(first)
    rows, step = math.prod(shape[:-1]), max(1, PIECE_BYTES // max(1, (shape or (1,))[-1]))
    return masks.shape(second) == shape and all(
        np.array_equal(masks.rows(first, row, min(row + step, rows)), masks.rows(second, row, min(row + step, rows)))
        for row in range(0, rows, step)
    )


def _write(
    file: BinaryIO, weight: Weight, masks: Masks, mask_name: str | None, on_bytes: Callable[[int], None]
) -> Applied:
    kept = 0
    dense = ((piece, 0) for piece in weight.read())
    for piece, count in dense if mask_name is None else _masked(weight, masks, mask_name):
        file.write(piece)
        kept += count
        on_bytes(len(piece))
    return Applied(weight.name, weight.dtype, weight.shape, None if mask_name is None else kept)


def _masked(weight: Weight, masks: Masks, mask_name: str) -> Iterator[tuple[bytes | memoryview, int]]:
    """Yield a weight's bytes in pieces with zeros put in, and how many entries of each are kept."""
    item = DTYPE_BITS[weight.dtype] // 8
    cols = (masks.shape(mask_name) or (1,))[-1]
    first = 0
    for piece in _whole_items(weight.read(), item):
        entries = np.frombuffer(piece, np.uint8).reshape(-1, item).copy()
        last = first + len(entries)
        top = first // cols
        mask = masks.rows(mask_name, top, -(-last // cols)).reshape(-1)[first - top * cols : last - top * cols]
        entries[~mask] = 0
        yield entries.data.cast("B"), int(np.count_nonzero(mask))
        first = last


def _whole_items(pieces: Iterator[bytes | memoryview], item: int) -> Iterator[bytes]:
    """Cut pieces anew, so that no entry is split between two."""
    rest = b""
    for piece in pieces:
        joined = rest + bytes(piece)
        whole = len(joined) // item * item
        rest = joined[whole:]
        if whole:
            yield joined[:whole]
