"""Writes one file of a checkpoint: ranges of bytes as they are, tensors with a mask with zeros."""

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
    """An input file and the output that it becomes, from the first byte to the last.

    Args:
        source: The input file, open.
        file: Its path.
        output: What is written; what it has already is not written again.
        on_bytes: Called with the bytes of the input that are done.
    """

    def __init__(self, source: BinaryIO, file: Path, output: PartialFile, on_bytes: OnBytes) -> None:
        self._source, self._file, self._output, self._on_bytes = source, file, output, on_bytes
        self._hasher = blake3()
        self._position = 0
        self._advance(output.size)

    @property
    def position(self) -> int:
        """Bytes of the input that are done."""
        return self._position

    @property
    def input_digest(self) -> str:
        """BLAKE3 of the input as far as it is done, in hex."""
        return str(self._hasher.hexdigest())

    def copy_to(self, stop: int) -> None:
        """Copy the input as it is, up to an offset."""
        for piece in self._read(self._position, stop):
            self._output.write(piece)
            self._count(piece)

    def write_masked(self, step: Step, packed: npt.NDArray[np.uint8]) -> None:
        """Write a tensor with zeros where its mask drops it."""
        self.copy_to(step.entry.start)
        is_here = (step.source.file, step.source.start) == (self._file, self._position)
        for masked in masked_pieces(step.source, packed, self._count if is_here else lambda data: None):
            self._output.write(masked)
        self._advance(step.entry.stop)

    def write_values(self, entry: TensorEntry, pieces: Iterable[bytes | bytearray | memoryview]) -> None:
        """Write other values for a tensor."""
        self.copy_to(entry.start)
        for piece in pieces:
            self._output.write(piece)
        self._advance(entry.stop)

    def write_other(self, step: Step) -> None:
        """Write the tensor that the index names instead of its duplicate here."""
        self.write_values(step.entry, step.source.pieces())

    def _advance(self, stop: int) -> None:
        """Go on to an offset of the input, whose bytes count for its digest alone."""
        for piece in self._read(self._position, stop):
            self._count(piece)
        self._position = stop

    def _count(self, piece: bytes | memoryview) -> None:
        """Add bytes of the input to its digest and to the position."""
        self._hasher.update(piece)
        self._on_bytes(len(piece))
        self._position += len(piece)

    def _read(self, start: int, stop: int) -> Iterator[bytes]:
        if start < stop:
            yield from read_range(self._source, start, stop, f"{self._file} ended early")
