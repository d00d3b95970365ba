"""Writes files atomically: a temporary file replaces the target when it is complete."""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

MAX_NAME_CHARACTERS = 40
"""How many characters of the target's name the temporary name repeats.

The temporary name has 10 further characters. If it repeated the whole of a long name, it could be too long.
"""


def temporary_beside(target: Path) -> Path:
    """Return a path in the folder of a file, hidden and with a random name."""
    return target.parent / f".{target.name[:MAX_NAME_CHARACTERS]}.{secrets.token_hex(4)}"


@contextmanager
def replaced_when_complete(target: Path, temporary: Path | None = None) -> Iterator[Path]:
    """Yield the path of a temporary file, which replaces the target if the block ends without an error.

    The bytes are on the disk before the target is replaced, and the new name when the block ends. After an error the
    temporary file is deleted, and the target stays as it was. If the target is a symbolic link, the file that the link
    points to is replaced. A file that is replaced keeps its permissions; until then, only its owner can read the
    temporary file.

    Args:
        target: The file to write.
        temporary: The temporary file, in the target's folder; by default one with a random name.

    Raises:
        OSError: If the target's folder is missing, or the temporary file cannot be flushed to the disk or replace it.
    """
    target = Path(os.path.realpath(target))
    if not target.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(target))
    if temporary is None:
        temporary = temporary_beside(target)
    mode = stat.S_IMODE(target.stat().st_mode) if target.is_file() else None
    try:
        if mode is not None:
            temporary.touch(0o600)
        yield temporary
        sync(temporary)
        if mode is not None:
            temporary.chmod(mode)
        os.replace(temporary, target)
        if os.name == "posix":  # Other systems open no folders.
            sync(target.parent)
    finally:
        with suppress(OSError):  # It is missing, or cannot be deleted; then the error of the block is raised.
            temporary.unlink()


def sync(path: Path) -> None:
    """Flush a file, or the entries of a folder, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
