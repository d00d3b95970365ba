"""Reservations of memory among the processes of a machine: two that start large work together do not both take it."""

from __future__ import annotations

import fcntl
import os
import resource
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

FOLDER_MODE = 0o700


@dataclass(frozen=True)
class Reservations:
    """Reservations of the processes that share a folder.

    A process keeps its reservation as a file, which it locks: the lock of a dead process is gone. A reservation counts
    with the part that its process has not allocated yet.

    Attributes:
        folder: A folder of this user alone.
    """

    folder: Path

    @classmethod
    def of_user(cls) -> Reservations:
        """Return the reservations of this user's processes.

        Raises:
            OSError: If their folder cannot be made, or belongs to another user.
        """
        folder = Path(tempfile.gettempdir()) / f"masksmith-memory-{os.getuid()}"
        folder.mkdir(mode=FOLDER_MODE, exist_ok=True)
        state = folder.lstat()
        if state.st_uid != os.getuid() or folder.is_symlink():
            raise PermissionError(f"{folder} belongs to another user")
        return cls(folder)

    @contextmanager
    def held(self, needed: int, available: Callable[[], int], wait: Callable[[], None]) -> Iterator[int | None]:
        """Reserve bytes until the end of the block.

        Args:
            needed: The bytes.
            available: Returns the bytes that are free now.
            wait: Called while others have reserved what is needed; raises an error to give up.

        Yields:
            None; or the available bytes, if they do not suffice although nobody else has reserved any.
        """
        while True:
            with self._turn():
                reserved = self._reserved_by_others()
                free = available() - (reserved or 0)
                own = self._reserve(needed) if needed <= free else None
            if own is not None or reserved is None:
                break
            wait()
        try:
            yield None if own is not None else free
        finally:
            if own is not None:
                self._own_path().unlink(missing_ok=True)
                own.close()

    @contextmanager
    def _turn(self) -> Iterator[None]:
        with (self.folder / "lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _reserve(self, needed: int) -> IO[str]:
        file = self._own_path().open("w")
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write(f"{needed} {resident_bytes(os.getpid())}")
        file.flush()
        return file

    def _own_path(self) -> Path:
        return self.folder / f"{os.getpid()}.reservation"

    def _reserved_by_others(self) -> int | None:
        """Sum what others have reserved and not allocated yet; None if there are no others."""
        parts = [part for path in self.folder.glob("*.reservation") if (part := self._unallocated(path)) is not None]
        return sum(parts) if parts else None

    def _unallocated(self, path: Path) -> int | None:
        """Return what a reservation's process has not allocated yet; None if that process has ended."""
        with suppress(FileNotFoundError, ProcessLookupError, ValueError), path.open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                needed, before = (int(number) for number in file.read().split())
                return max(0, needed - max(0, resident_bytes(int(path.stem)) - before))
            path.unlink(missing_ok=True)
        return None


def resident_bytes(process: int) -> int:
    """Bytes of a process that are in memory."""
    return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * resource.getpagesize()
