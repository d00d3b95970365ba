"""A tensor of a checkpoint: where its bytes are, and functions that read them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import BinaryIO

from masksmith_client._errors import InputError
from masksmith_wire.headers import TensorEntry

PIECE_BYTES = 512 * 1024
"""Maximum size of a piece that is read at a time."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor in a safetensors file; `start` and `stop` are byte offsets from the beginning of the file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    file: Path
    start: int
    stop: int

    @classmethod
    def of(cls, file: Path, entry: TensorEntry) -> Tensor:
        """Make the tensor of a header's entry."""
        return cls(entry.name, entry.dtype, entry.shape, file, entry.start, entry.stop)

    @property
    def data_bytes(self) -> int:
        """Number of bytes that `pieces` yields."""
        return self.stop - self.start

    @property
    def is_stored(self) -> bool:
        """Whether its bytes are those of the file; not so for a `ScaledTensor`, whose bytes are computed."""
        return True

    @property
    def early_end_text(self) -> str:
        """Beginning of the error message if the file ends before `stop`."""
        return f"{self.file} ended inside {self.name!r}"

    def pieces(self) -> Iterator[bytes]:
        """Read its little-endian bytes in pieces.

        Raises:
            InputError: If the file cannot be read, or became shorter.
        """
        with open_tensor_file(self) as file:
            yield from read_range(file, self.start, self.stop, self.early_end_text)

    def read(self) -> bytearray:
        """Read all of its bytes.

        Raises:
            InputError: As `pieces` does.
        """
        data, size = bytearray(self.data_bytes), 0
        for piece in self.pieces():
            data[size : size + len(piece)] = piece
            size += len(piece)
        return data


@contextmanager
def open_tensor_file(tensor: Tensor) -> Iterator[FileIO]:
    """Open the file of a tensor, and raise an `OSError` of the block as an `InputError`.

    Raises:
        InputError: If the file cannot be opened, or an `OSError` is raised inside the block.
    """
    try:
        with tensor.file.open("rb", buffering=0) as file:
            yield file
    except OSError as error:
        raise InputError(f"{tensor.file} cannot be read: {error.strerror}") from None


def read_range(file: BinaryIO, start: int, stop: int, early_end_text: str) -> Iterator[bytes]:
    """Read a range of an open file in pieces.

    Raises:
        InputError: If the file ends before `stop`; the message begins with `early_end_text`.
    """
    file.seek(start)
    remaining = stop - start
    while remaining:
        piece = file.read(min(PIECE_BYTES, remaining))
        if not piece:
            raise InputError(f"{early_end_text}: the file changed while it was read")
        remaining -= len(piece)
        yield piece


def read_into(buffer: memoryview, file: FileIO, start: int, early_end_text: str) -> None:
    """Fill a buffer with a range of an open file.

    Raises:
        InputError: If the file ends before the buffer is full; the message begins with `early_end_text`.
    """
    file.seek(start)
    while buffer:
        size = file.readinto(buffer)
        if not size:
            raise InputError(f"{early_end_text}: the file changed while it was read")
        buffer = buffer[size:]
