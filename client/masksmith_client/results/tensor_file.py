"""Base class of masks and updated weights: an open safetensors file as a mapping from names to tensors."""

from __future__ import annotations

import math
import os
import weakref
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from blake3 import blake3

from masksmith_client._errors import InputError
from masksmith_client.submission.streamed_tensor import Restore
from masksmith_wire.headers import read_header

from .atomic_write import save_copy
from .tensor_file_names import check_tensor_file_name

PIECE_ENTRIES = 512 * 1024
"""Largest number of entries of a tensor that are checked or counted at a time, unless a single row is longer."""


def row_ranges(shape: tuple[int, ...]) -> Iterator[tuple[int, int]]:
    """Divide a tensor, viewed as the matrix `[prod(shape[:-1]), shape[-1]]`, into ranges of rows.

    A range has at most `PIECE_ENTRIES` entries, or one row.
    """
    rows, step = math.prod(shape[:-1]), max(1, PIECE_ENTRIES // max(1, (shape or (1,))[-1]))
    for start in range(0, rows, step):
        yield start, min(start + step, rows)


class TensorFile(Mapping[str, Any]):
    """A mapping over the tensors of an open safetensors file; subclasses define how a tensor is read.

    The file is closed by `close`, or when the mapping is garbage-collected.

    Args:
        file: The file.
        restore: Functions that turn arrays into results, by name; see `Restore`.
    """

    def __init__(self, file: BinaryIO, restore: Mapping[str, Restore] | None = None) -> None:
        self._file = file
        weakref.finalize(self, file.close)
        self._restore = restore or {}
        self._header = read_header(file)
        self._entries = self._header.tensors

    def save(self, path: str | Path) -> Path:
        """Copy the whole file to a path, atomically, and return the path.

        Raises:
            InputError: If the path has the suffix of another format than safetensors.
        """
        check_tensor_file_name(Path(path))
        return save_copy(self._file, Path(path))

    def digest(self) -> str:
        """Return the BLAKE3 digest of the file, in hex."""
        hasher = blake3()
        self._file.seek(0)
        while piece := self._file.read(2**20):
            hasher.update(piece)
        return str(hasher.hexdigest())

    def close(self) -> None:
        """Close the file; the temporary file of a download is then deleted, unlike the copies that `save` made."""
        self._file.close()

    def _read(self, start: int, stop: int) -> bytes:
        """Read the bytes from `start` to `stop` (exclusive) of the file; several threads may read at the same time.

        Raises:
            InputError: If the file has become shorter.
        """
        # One call reads at most 2 GiB.
        pieces = []
        while start < stop:
            pieces.append(os.pread(self._file.fileno(), stop - start, start))
            start += len(pieces[-1])
            if not pieces[-1]:
                raise InputError("the file of results became shorter while it was open")
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {len(self)} tensor(s)>"
