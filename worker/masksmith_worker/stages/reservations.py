"""Reservations of memory by a user's processes on a machine, so that no two of them count on the same free memory."""

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
    """Reservations of the processes that share a folder; a process has at most one at a time.

    A reservation is a file that its process has locked; a file without a lock is of a dead process, and is deleted. Of
    each reservation, only the bytes that its process has not allocated yet are counted.

    Attributes:
        folder: A folder to which only this user has access.
    """

    folder: Path

    @classmethod
    def of_user(cls) -> Reservations:
        """Return the reservations of this user's processes.

        Raises:
            OSError: If their folder cannot be made, belongs to another user, or is a symbolic link.
        """
        folder = Path(tempfile.gettempdir()) / f"masksmith-memory-{os.getuid()}"
        folder.mkdir(mode=FOLDER_MODE, exist_ok=True)
        if folder.is_symlink():
            raise PermissionError(f"{folder} is a symbolic link; remove it")
        if folder.lstat().st_uid != os.getuid():
            raise PermissionError(f"{folder} belongs to another user")
        return cls(folder)

    @contextmanager
    def try_to_reserve(
        self, needed_bytes: int, available: Callable[[], int], wait: Callable[[], None]
    ) -> Iterator[int | None]:
        """Reserve memory until the end of the block, after waiting while other processes have reserved too much.

        Args:
            needed_bytes: Number of bytes to reserve.
            available: Returns the number of bytes that are free now.
            wait: Called before each new attempt, while other processes have reserved too much; raises an error to give
                up.

        Yields:
            None if the bytes are reserved; the available bytes, with nothing reserved, if they are too few although no
            other process has a reservation.
        """
        while True:
            with self._locked_folder():
                others_bytes = self._reserved_by_others()
                free_bytes = available() - (others_bytes or 0)
                reservation = self._reserve(needed_bytes) if needed_bytes <= free_bytes else None
            if reservation is not None or others_bytes is None:
                break
            wait()
        try:
            yield None if reservation is not None else free_bytes
        finally:
            if reservation is not None:
                self._own_path().unlink(missing_ok=True)
                reservation.close()

    @contextmanager
    def _locked_folder(self) -> Iterator[None]:
        with (self.folder / "lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _reserve(self, needed_bytes: int) -> IO[str]:
        """Lock and write this process's reservation: the needed bytes, and those that the process has in memory now.

        Returns:
            The file, which stays locked until it is closed.
        """
        file = self._own_path().open("w")
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write(f"{needed_bytes} {resident_bytes(os.getpid())}")
        file.flush()
        return file

    def _own_path(self) -> Path:
        return self.folder / f"{os.getpid()}.reservation"

    def _reserved_by_others(self) -> int | None:
        """Sum the bytes that others have reserved and not allocated yet; None if no other has a reservation.

        Called while this process has none, so all files are those of others.
        """
        amounts_or_none = [self._unallocated_bytes(path) for path in self.folder.glob("*.reservation")]
        amounts = [amount for amount in amounts_or_none if amount is not None]
        return sum(amounts) if amounts else None

    def _unallocated_bytes(self, path: Path) -> int | None:
        """Return the bytes of a reservation that its process has not allocated yet.

        None if the process has ended, or the file is gone or malformed. A file that is not locked is deleted.
        """
        with suppress(FileNotFoundError, ProcessLookupError, ValueError), path.open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                # The process is alive: it holds the lock.
                reserved_bytes, resident_before = (int(number) for number in file.read().split())
                allocated = max(0, resident_bytes(int(path.stem)) - resident_before)
                return max(0, reserved_bytes - allocated)
            path.unlink(missing_ok=True)
        return None


def resident_bytes(process: int) -> int:
    """Bytes of a process that are in memory."""
    return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * resource.getpagesize()
