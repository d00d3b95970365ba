"""The data directory of `masksmith up`, with a lock and a format version."""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from pathlib import Path

from masksmith_state import DATA_FORMAT

from .errors import FailedError, UsageError
from .logs import rotate_closed

LOCK, FORMAT, AUTH = "lock", "format", "auth"
"""Files of a data directory: the lock with its holder, the format version, and the record that requests need keys."""


class InUseError(UsageError):
    """Another process holds the directory."""

    def __init__(self, path: Path, holder: str) -> None:
        super().__init__(
            f"{path} is in use by another 'masksmith up'{f' ({holder})' if holder else ''}; stop it, or choose "
            f"another directory with --data"
        )
        self.path = path


class DataDirectory:
    """A data directory with a lock.

    This process holds the lock until it calls `release` or exits; a child process that inherited the file descriptor
    holds it until the child exits.

    Attributes:
        path: The directory, as an absolute path.
        lock: File descriptor of the locked file.
        redis: Folder of Valkey's append-only file.
        store: Folder of uploads and results.
        logs: Folder of log files.

    Raises:
        InUseError: If another process holds the lock; this error is a `UsageError`.
        UsageError: If the directory is not empty and has no data format, has another format, or cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self.redis, self.store, self.logs = (self.path / name for name in ("redis", "store", "logs"))
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.lock = os.open(self.path / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise self._unusable_error(error) from None
        try:
            self._acquire_lock()
            self._check_or_write_format()
            for folder in (self.redis, self.store, self.logs):
                folder.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            os.close(self.lock)
            raise self._unusable_error(error) from None
        except BaseException:
            os.close(self.lock)
            raise

    def _unusable_error(self, error: OSError) -> UsageError:
        return UsageError(f"the data directory {self.path} cannot be used: {error.strerror}; name another with --data")

    def prepare_log(self, name: str) -> Path:
        """Rotate the log file of a process if earlier runs made it large; return its path."""
        path = self.logs / f"{name}.log"
        rotate_closed(path)
        return path

    def write_holder(self, text: str) -> None:
        """Write a description of the lock's holder to the lock file, for error messages."""
        os.ftruncate(self.lock, 0)
        with suppress(OSError):  # On a full disk, messages do not name the holder.
            os.pwrite(self.lock, text.encode(), 0)

    def check_unchanged(self) -> None:
        """Check that the directory at this path is still the one that is locked.

        Raises:
            FailedError: If the directory was deleted, or replaced by one with another lock.
        """
        with suppress(OSError):
            if os.path.samestat(os.stat(self.path / LOCK), os.fstat(self.lock)):
                return
        raise FailedError(f"{self.path} was deleted or replaced while it was in use: start 'masksmith up' again")

    def release(self) -> None:
        """Erase the holder's description, and give up the lock; child processes that inherited it go on holding it."""
        self.write_holder("")
        os.close(self.lock)

    @property
    def requires_keys(self) -> bool:
        """Whether `record_key_requirement` was ever called.

        A file records it, because Valkey, which stores the keys, may lose its data.
        """
        return requires_keys(self.path)

    def record_key_requirement(self) -> None:
        """Record that every request needs a key from now on."""
        record_key_requirement(self.path)

    def _acquire_lock(self) -> None:
        try:
            fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(self.lock, 500, 0).decode(errors="replace").strip()
            raise InUseError(self.path, holder) from None

    def _check_or_write_format(self) -> None:
        format_file = self.path / FORMAT
        version = format_file.read_text(errors="replace").strip() if format_file.exists() else ""
        # An empty file counts as none: a first start was killed while it wrote the file.
        if version:
            self._check_format(version)
        elif set(os.listdir(self.path)) - {LOCK, FORMAT}:
            raise UsageError(
                f"{self.path} holds other files and is not a data directory of masksmith; choose an empty one"
            )
        else:
            self._write_format(format_file)

    def _write_format(self, format_file: Path) -> None:
        try:
            format_file.write_text(f"{DATA_FORMAT}\n")
        except OSError:
            # On a full disk a part of the file may be written, which would be read as another format.
            format_file.unlink(missing_ok=True)
            raise

    def _check_format(self, version: str) -> None:
        if version == str(DATA_FORMAT):
            return
        is_newer = version.isdigit() and int(version) > DATA_FORMAT
        advice = "upgrade masksmith" if is_newer else "use the masksmith that wrote it"
        raise UsageError(
            f"{self.path} has data format {version[:20]!r}, this masksmith uses {DATA_FORMAT}: {advice}, or choose "
            f"another directory with --data"
        )


def requires_keys(path: Path) -> bool:
    """Whether `record_key_requirement` was ever called for a data directory."""
    return (path / AUTH).exists()


def record_key_requirement(path: Path) -> None:
    """Record in a data directory that every request needs a key."""
    (path / AUTH).write_text("required\n")
