"""Reservations of memory by a user's processes on a machine, so that no two of them count on the same free memory."""

from __future__ import annotations

import fcntl
import os
import resource
import secrets
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

FOLDER_MODE = 0o700
PID_NAMESPACE = Path("/proc/self/ns/pid")
"""File whose inode number identifies the namespace of process ids; one id means two processes in two containers."""


@dataclass(frozen=True)
class Reservations:
    """Reservations of the processes that share a folder; a process has at most one at a time.

    A reservation is a file with a random name that its process has locked. A file that is not locked belongs to a
    process that has ended, and is deleted. The bytes that the process has allocated already are subtracted from its
    reservation, unless the process is in another container, where its memory use cannot be read.

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
            None once the bytes are reserved. If they do not fit even though no other process has a reservation: the
            number of bytes that are free; nothing is reserved then.
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
                Path(reservation.name).unlink(missing_ok=True)
                reservation.close()

    @contextmanager
    def _locked_folder(self) -> Iterator[None]:
        with (self.folder / "lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _reserve(self, needed_bytes: int) -> IO[str]:
        """Lock and write this process's reservation.

        The file contains four numbers: the bytes that are needed, the bytes that the process has in memory now, the
        process's id, and the namespace of this id.

        Returns:
            The file, which stays locked until it is closed.
        """
        file = (self.folder / f"{secrets.token_hex(8)}.reservation").open("x")
        fcntl.flock(file, fcntl.LOCK_EX)
        process = os.getpid()
        file.write(f"{needed_bytes} {resident_bytes(process)} {process} {pid_namespace()}")
        file.flush()
        return file

    def _reserved_by_others(self) -> int | None:
        """Sum the bytes that others have reserved and not allocated yet; None if no other has a reservation.

        Called while this process has no reservation, so all files belong to other processes.
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
                reserved_bytes, resident_before, process, namespace = (int(number) for number in file.read().split())
                if namespace != pid_namespace():
                    return reserved_bytes
                allocated = max(0, resident_bytes(process) - resident_before)
                return max(0, reserved_bytes - allocated)
            path.unlink(missing_ok=True)
        return None


def pid_namespace() -> int:
    """Number of the namespace in which this process has its id; it is the same for all processes of a container."""
    return PID_NAMESPACE.stat().st_ino


def resident_bytes(process: int) -> int:
    """Bytes of a process that are in memory."""
    return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * resource.getpagesize()
