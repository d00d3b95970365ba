"""A file that is written under a temporary name over several runs, and gets its own name when it is complete."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from blake3 import blake3

CHUNK = 2**20
PART_SUFFIX = ".part"


class PartialFile:
    """An output file and the digest of what is written so far."""

    def __init__(self, target: Path) -> None:
        self.target = target
        self.path = target.with_name(f".{target.name}{PART_SUFFIX}")
        self._hasher = blake3()
        self.size = 0
        with naming(self.target):
            self._file = self.path.open("r+b" if self.path.exists() else "w+b")

    def resume(self, size: int, digest: str) -> bool:
        """Go on after `size` bytes; gives False, and begins anew, unless they have this digest."""
        self._hasher, self.size = blake3(), 0
        self._file.seek(0)
        while self.size < size and (piece := self._file.read(min(CHUNK, size - self.size))):
            self._hasher.update(piece)
            self.size += len(piece)
        if self.size != size or self.digest != digest:
            self.restart()
            return False
        self._cut()
        return True

    def restart(self) -> None:
        """Begin anew."""
        self._hasher, self.size = blake3(), 0
        self._cut()

    def reopen_finished(self) -> None:
        """Take the finished file as what is written so far."""
        with naming(self.target):
            self._file.close()
            os.replace(self.target, self.path)
            self._file = self.path.open("r+b")

    def _cut(self) -> None:
        with naming(self.target):
            self._file.truncate(self.size)
            self._file.seek(self.size)

    @property
    def digest(self) -> str:
        """BLAKE3 of what is written so far, in hex."""
        return str(self._hasher.hexdigest())

    def write(self, data: Any) -> None:
        """Append bytes."""
        with naming(self.target):
            self._file.write(data)
        self._hasher.update(data)
        self.size += len(data)

    def flush(self) -> None:
        """Hand what is written to the system, so that it outlives the process."""
        with naming(self.target):
            self._file.flush()

    def read(self, start: int, stop: int) -> bytes:
        """Read what was written."""
        self.flush()
        return os.pread(self._file.fileno(), stop - start, start)

    def finish(self) -> None:
        """Return the file its name, once its bytes are on the disk."""
        with naming(self.target):
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            os.replace(self.path, self.target)
            sync_folder(self.target.parent)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        with naming(self.target):
            self._file.close()


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Name a file in errors of the system that do not."""
    try:
        yield
    except OSError as error:
        if error.filename is not None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from None


def sync_folder(folder: Path) -> None:
    """Put the names of a directory on the disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
