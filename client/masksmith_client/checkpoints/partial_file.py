"""An output file that one run begins and a later run may continue; it has a temporary name until it is complete."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from blake3 import blake3

from masksmith._atomic_write import sync
from masksmith_client._errors import InputError

PIECE_BYTES = 2**20
"""Size of the pieces in which the bytes that an earlier run has written are read."""
MAX_READ_BYTES = 2**30
"""Maximum size of one system call that reads a range of the file."""
PART_SUFFIX = ".part"
NAME_BYTES = 255
"""Maximum length of a file's name."""


class PartialFile:
    """An output file with a temporary name, and the digest of the bytes so far.

    An earlier run may have left bytes in the file, so `resume` or `restart` must be called before the first `write`.

    An `OSError` of any method names the file.

    Raises:
        InputError: If a directory has the temporary name.
    """

    def __init__(self, target: Path) -> None:
        self.target = target
        self.path = temporary_path(target)
        self._hasher = blake3()
        self.size = 0
        if self.path.is_dir():
            raise InputError(f"{self.target} is written to {self.path} first, which is a directory; remove it")
        with named_errors(self.target):
            self._file = self.path.open("r+b" if self.path.exists() else "w+b")

    def resume(self, size: int, digest: str) -> bool:
        """Continue after the first `size` bytes, which must have this digest.

        If there are fewer bytes, or they have another digest, all are discarded, and False is returned.
        """
        self._hasher, self.size = blake3(), 0
        with named_errors(self.target):
            self._file.seek(0)
            while self.size < size and (piece := self._file.read(min(PIECE_BYTES, size - self.size))):
                self._hasher.update(piece)
                self.size += len(piece)
        if self.size != size or self.digest != digest:
            self.restart()
            return False
        self._cut()
        return True

    def restart(self) -> None:
        """Discard everything written so far."""
        self._hasher, self.size = blake3(), 0
        self._cut()

    def reopen_finished(self) -> None:
        """Give the finished file its temporary name again, and open it; `resume` or `restart` must be called next."""
        with named_errors(self.target):
            self._file.close()
            os.replace(self.target, self.path)
            self._file = self.path.open("r+b")

    def _cut(self) -> None:
        """Remove the bytes after the first `size`, and continue there."""
        with named_errors(self.target):
            self._file.truncate(self.size)
            self._file.seek(self.size)

    @property
    def digest(self) -> str:
        """BLAKE3 digest of the bytes so far, in hex."""
        return str(self._hasher.hexdigest())

    def write(self, data: Any) -> None:
        """Append bytes."""
        with named_errors(self.target):
            self._file.write(data)
        self._hasher.update(data)
        self.size += len(data)

    def flush(self) -> None:
        """Flush to the operating system, so that the bytes survive the end of this process."""
        with named_errors(self.target):
            self._file.flush()

    def read(self, start: int, stop: int) -> bytes:
        """Read a range of the bytes so far."""
        self.flush()
        with named_errors(self.target):
            pieces = []
            while start < stop:
                # One read of Linux returns at most 2 GiB.
                piece = os.pread(self._file.fileno(), min(stop - start, MAX_READ_BYTES), start)
                if not piece:
                    break
                pieces.append(piece)
                start += len(piece)
            return b"".join(pieces)

    def finish(self) -> None:
        """Flush the file to the disk, and rename it to its target."""
        with named_errors(self.target):
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            os.replace(self.path, self.target)
            sync(self.target.parent)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        with named_errors(self.target):
            self._file.close()


def temporary_path(target: Path) -> Path:
    """Return the path of a `PartialFile` until it is complete."""
    return target.with_name(temporary_name(target.name, PART_SUFFIX))


def temporary_name(name: str, suffix: str) -> str:
    """Return the name that a file has until it is complete; always the same for a name, hidden, and never too long."""
    hidden = f".{name}{suffix}"
    if len(os.fsencode(hidden)) <= NAME_BYTES:
        return hidden
    return f".{blake3(os.fsencode(name)).hexdigest()}{suffix}"


@contextmanager
def named_errors(path: Path) -> Iterator[None]:
    """Add a path to each `OSError` that names no file."""
    try:
        yield
    except OSError as error:
        if error.filename is not None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from None
