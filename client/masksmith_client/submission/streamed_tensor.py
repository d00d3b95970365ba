"""A tensor to upload: a one-tensor safetensors file produced in pieces, so that memory use stays bounded."""

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
"""Name of the tensor inside its file; always the same, so that equal weights have equal digests."""

PIECE_BYTES = 512 * 1024
"""Size of the pieces in which arrays and mask files are read."""

BoolMask = npt.NDArray[np.bool_]
Restore = Callable[[npt.NDArray[Any]], Any]
"""Converts a numpy array, such as a mask, to the framework and device of the weight that it belongs to."""


def as_numpy(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return an array unchanged: the restore function of weights from files and numpy arrays."""
    return array


@dataclass(frozen=True, slots=True)
class StreamedTensor:
    """A tensor whose bytes are read in pieces.

    Attributes:
        name: Its name in the model.
        dtype: Its dtype by its safetensors name, or by the framework's name if safetensors has none.
        shape: Its shape.
        read: Yields its little-endian bytes in pieces; may be called several times, from any thread.
        restore: See `Restore`.
        layout: How it is made of matrices, if that is known; None lets names and shapes decide.
        dense_by_default_reason: Why it stays dense by default, such as that its module is an embedding, else None. If
            there is a reason, the tensor is masked only if the option `layers` has its full name.
        file_format: The format that its file names in `__metadata__`; empty if none.
        may_be_convolution: False if its module shows that it is not a convolution's weight, whatever its shape.
        unsupported_reason: Why its bytes cannot be read; None if they can.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    read: Callable[[], Iterator[bytes | memoryview]]
    restore: Restore = as_numpy
    layout: Layout | None = None
    dense_by_default_reason: str | None = None
    file_format: str = ""
    may_be_convolution: bool = True
    unsupported_reason: str | None = None

    @property
    def data_bytes(self) -> int:
        """Bytes of its data, without the header."""
        return data_bytes(self.dtype, self.shape)

    @property
    def file_bytes(self) -> int:
        """Bytes of its file: header and data."""
        return len(self.header()) + self.data_bytes

    def header(self) -> bytes:
        """Return the safetensors header of its file, padded so that the data is aligned."""
        return build_header({KEY: (self.dtype, self.shape)})

    def pieces(self) -> Iterator[bytes | memoryview]:
        """Yield its file in pieces: the header, then the pieces that `read` yields."""
        yield self.header()
        yield from self.read()

    def digest(self) -> str:
        """Return the BLAKE3 digest of its file, in hex."""
        hasher = blake3()
        for piece in self.pieces():
            hasher.update(piece)
        return hasher.hexdigest()


def flat_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape of the matrix `[out, prod(other dimensions)]`; shapes of up to two dimensions are unchanged."""
    return shape if len(shape) <= 2 else (shape[0], math.prod(shape[1:]))


def flattened(weight: StreamedTensor) -> StreamedTensor:
    """Return a convolution's weight viewed as a matrix of `flat_shape`; masks are restored to the original shape.

    A weight of up to two dimensions is returned unchanged.
    """
    if len(weight.shape) <= 2:
        return weight
    return replace(
        weight,
        layout=None,
        shape=flat_shape(weight.shape),
        restore=lambda mask: weight.restore(mask.reshape(weight.shape)),
    )
