"""A weight ready to travel: a one-tensor safetensors file that is produced piece by piece, never held as a whole."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from blake3 import blake3

from masksmith.layouts import Layout
from masksmith_wire.headers import build_header, data_bytes

KEY = "weight"
"""Name of the tensor inside its file: the same for all, so that equal weights have equal digests."""

PIECE_BYTES = 512 * 1024

BoolMask = npt.NDArray[np.bool_]
Restore = Callable[[npt.NDArray[Any]], Any]


def as_numpy(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Give a mask in the kind that file and numpy weights have."""
    return array


@dataclass(frozen=True, slots=True)
class Weight:
    """A tensor and how to read its bytes.

    Attributes:
        name: Its name in the model.
        dtype: Its dtype as safetensors names it, or the framework's own name where safetensors has none.
        shape: Its shape.
        read: Gives its little-endian bytes in pieces; may be called again, from any thread.
        restore: Turns a numpy array, such as a mask, into the weight's own kind.
        layout: How it is made of matrices, where its module says so; names and shapes decide otherwise.
        dense_by_default: Why its module says that it is no matrix, so that only its full name selects it.
        unsupported_reason: Why its bytes cannot be read, where they cannot.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    read: Callable[[], Iterator[bytes | memoryview]]
    restore: Restore = as_numpy
    layout: Layout | None = None
    dense_by_default: str | None = None
    unsupported_reason: str | None = None

    @property
    def data_bytes(self) -> int:
        """Size of its data."""
        return data_bytes(self.dtype, self.shape)

    @property
    def file_bytes(self) -> int:
        """Size of its file."""
        return len(self.header()) + self.data_bytes

    def header(self) -> bytes:
        """Give the beginning of its file, padded so that the data is aligned."""
        return build_header({KEY: (self.dtype, self.shape)})

    def pieces(self) -> Iterator[bytes | memoryview]:
        """Give its file in pieces of at most half a MiB."""
        yield self.header()
        yield from self.read()

    def digest(self) -> str:
        """BLAKE3 of its file, in hex."""
        hasher = blake3()
        for piece in self.pieces():
            hasher.update(piece)
        return hasher.hexdigest()


def flat_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Give the matrix `[out, everything else]` of a weight's shape; smaller shapes stay."""
    return shape if len(shape) <= 2 else (shape[0], math.prod(shape[1:]))


def flattened(weight: Weight) -> Weight:
    """Give a convolution's weight as that matrix, whose bytes are the same; masks come back in its own shape."""
    if len(weight.shape) <= 2:
        return weight
    return replace(
        weight,
        layout=None,
        shape=flat_shape(weight.shape),
        restore=lambda mask: weight.restore(mask.reshape(weight.shape)),
    )
