"""Writes files atomically: the bytes go to a temporary file, which replaces the target when all are written."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from masksmith._atomic_write import temporary_beside
from masksmith_client._errors import InputError
from masksmith_client.checkpoints.partial_file import named_errors


@contextmanager
def atomic_write(target: Path) -> Iterator[BinaryIO]:
    """Open a temporary file beside the target; it replaces the target if the block ends without an error.

    After an error the temporary file is deleted, and the target stays as it was. If the target is a symbolic link, the
    file that the link points to is replaced. A file that is replaced keeps its permissions. The bytes are on the disk
    before the target is replaced.

    Raises:
        InputError: If the target is a device or a pipe.
        OSError: If the file cannot be written, for example on a full disk; the error names the target.
    """
    target = Path(os.path.realpath(target))
    temporary = temporary_beside(target)
    with _errors_of(target):
        mode = _mode_of(target)
        file = temporary.open("x+b")
    with named_errors(target), file:
        try:
            if mode is not None:
                os.fchmod(file.fileno(), mode & 0o777)
            yield file
            file.flush()
            os.fsync(file.fileno())
            with _errors_of(target):
                os.replace(temporary, target)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def _mode_of(target: Path) -> int | None:
    """Return the mode of the file to replace; None if there is none, or a directory, which is refused later.

    Raises:
        InputError: If it is a device or a pipe.
    """
    try:
        mode = target.stat().st_mode
    except FileNotFoundError:
        return None
    if stat.S_ISDIR(mode):
        return None
    if not stat.S_ISREG(mode):
        raise InputError(f"{target} is a device or a pipe, not a file; name the file to write")
    return mode


@contextmanager
def _errors_of(target: Path) -> Iterator[None]:
    """Name the target in each `OSError`, instead of the temporary file, which the user does not know."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(target)) from None


def save_copy(file: BinaryIO, target: Path) -> Path:
    """Copy a whole open file to a path, atomically; create the path's folder if it is missing; return the path."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(target) as copy:
        file.seek(0)
        shutil.copyfileobj(file, copy, 2**20)
    return target
