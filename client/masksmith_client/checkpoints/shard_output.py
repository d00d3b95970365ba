"""Writes one output file of a checkpoint: copies the input file, and replaces the bytes of tensors that change."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
from blake3 import blake3

from masksmith_wire.headers import TensorEntry

from .masking import masked_pieces
from .partial_file import PartialFile
from .steps import Step
from .tensors import read_range

OnBytes = Callable[[int], None]


class ShardOutput:
    """Writes an output file from its input file, from the first byte to the last; both have the same size.

    Args:
        input_file: The input file, open.
        path: Path of the input file.
        output: The output file; writing continues after the bytes that it has already.
        on_bytes: Called with the number of bytes of the input that have been processed since the last call.
    """

    def __init__(self, input_file: BinaryIO, path: Path, output: PartialFile, on_bytes: OnBytes) -> None:
        self._input_file, self._path, self._output, self._on_bytes = input_file, path, output, on_bytes
        self._hasher = blake3()
        self._position = 0
        self._skip_to(output.size)

    @property
    def position(self) -> int:
        """Offset in the input, and in the output, of the next byte."""
        return self._position

    @property
    def input_digest(self) -> str:
        """BLAKE3 digest of the input before `position`, in hex."""
        return str(self._hasher.hexdigest())

    def copy_to(self, stop: int) -> None:
        """Copy the input unchanged up to an offset."""
        for piece in self._read(self._position, stop):
            self._output.write(piece)
            self._record_input(piece)

    def write_masked(self, step: Step, packed_mask: npt.NDArray[np.uint8]) -> None:
        """Write a tensor with zeros in the entries that its mask drops."""
        self.copy_to(step.entry.start)
        is_in_this_file = (step.source.file, step.source.start) == (self._path, self._position)
        # `input_digest` covers this file's bytes. Usually `masked_pieces` reads them, and records them. If the tensor
        # is read from another file (the index names it there), `_skip_to` reads this file's copy for the digest only.
        on_stored = self._record_input if is_in_this_file else lambda data: None
        for piece in masked_pieces(step.source, packed_mask, on_stored):
            self._output.write(piece)
        self._skip_to(step.entry.stop)

    def write_values(self, entry: TensorEntry, pieces: Iterable[bytes | bytearray | memoryview]) -> None:
        """Write other values for a tensor."""
        self.copy_to(entry.start)
        for piece in pieces:
            self._output.write(piece)
        self._skip_to(entry.stop)

    def write_from_indexed_file(self, step: Step) -> None:
        """Write this file's duplicate of a tensor, with the bytes in the file that the index names for the tensor."""
        self.write_values(step.entry, step.source.pieces())

    def _skip_to(self, stop: int) -> None:
        """Read the input up to an offset, for its digest, without writing it."""
        for piece in self._read(self._position, stop):
            self._record_input(piece)

    def _record_input(self, piece: bytes | memoryview) -> None:
        """Add bytes of the input to its digest and to the position, and report their number."""
        self._hasher.update(piece)
        self._on_bytes(len(piece))
        self._position += len(piece)

    def _read(self, start: int, stop: int) -> Iterator[bytes]:
        if start < stop:
            yield from read_range(self._input_file, start, stop, f"{self._path} ended early")
