"""Masks onto a model: dense weights with zeros where the masks drop, written tensor by tensor, a piece at a time."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from masksmith_client._errors import InputError
from masksmith_client.submission.files import read_metadata, read_path
from masksmith_client.submission.weights import Weight, flat_shape
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
    weights = read_path(model)
    _check(masks, weights, model)
    with whole_file(output) as file:
        shapes = {weight.name: (weight.dtype, weight.shape) for weight in weights}
        file.write(build_header(shapes, read_metadata(model)))
        return [_write(file, weight, masks, on_bytes) for weight in weights]


def model_bytes(model: Path) -> int:
    """Give the size of a model's data."""
    return sum(weight.data_bytes for weight in read_path(model))


def _check(masks: Masks, weights: list[Weight], model: Path) -> None:
    by_name = {weight.name: weight for weight in weights}
    for name in masks:
        if name not in by_name:
            raise InputError(f"mask {name!r} has no tensor in {model}")
        weight = by_name[name]
        if masks.shape(name) not in (weight.shape, flat_shape(weight.shape)):
            raise InputError(f"mask {name!r} has shape {list(masks.shape(name))}, the tensor has {list(weight.shape)}")
        if DTYPE_BITS[weight.dtype] % 8 or weight.dtype == "F8_E8M0":
            raise InputError(f"{name!r} has dtype {weight.dtype}, whose entries cannot be zeroed one by one")


def _write(file: BinaryIO, weight: Weight, masks: Masks, on_bytes: Callable[[int], None]) -> Applied:
    kept = 0
    masked = weight.name in masks
    for piece, count in _masked(weight, masks) if masked else ((piece, 0) for piece in weight.read()):
        file.write(piece)
        kept += count
        on_bytes(len(piece))
    return Applied(weight.name, weight.dtype, weight.shape, kept if masked else None)


def _masked(weight: Weight, masks: Masks) -> Iterator[tuple[bytes | memoryview, int]]:
    """Yield a weight's bytes in pieces with zeros put in, and how many entries of each are kept."""
    item = DTYPE_BITS[weight.dtype] // 8
    cols = (masks.shape(weight.name) or (1,))[-1]
    first = 0
    for piece in _whole_items(weight.read(), item):
        entries = np.frombuffer(piece, np.uint8).reshape(-1, item).copy()
        last = first + len(entries)
        top = first // cols
        mask = masks.rows(weight.name, top, -(-last // cols)).reshape(-1)[first - top * cols : last - top * cols]
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
