"""Writes files atomically: the bytes go to a temporary file, which replaces the target when all are written."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from masksmith._atomic_write import replaced_when_complete, temporary_beside
from masksmith_client._errors import InputError


@contextmanager
def atomic_write(target: Path) -> Iterator[BinaryIO]:
    """Open a temporary file beside the target; it replaces the target if the block ends without an error.

    After an error the temporary file is deleted, and the target stays as it was. If the target is a symbolic link, the
    file that the link points to is replaced. A file that is replaced keeps its permissions. The bytes are on the disk
    before the target is replaced.

    Raises:
        InputError: If the target is a device or a pipe, or if `refuse_link_to_blob` refuses it.
        OSError: If the file cannot be written, for example on a full disk; the error names the target.
    """
    refuse_link_to_blob(target)
    target = Path(os.path.realpath(target))
    _refuse_devices(target)
    temporary = temporary_beside(target)
    with (
        _errors_named(target, temporary),
        replaced_when_complete(target, temporary),
        temporary.open("w+b") as file,
    ):
        yield file
        file.flush()


def refuse_link_to_blob(target: Path) -> None:
    """Refuse to replace a file of a download cache through a link to it.

    In the cache of the Hugging Face hub, files are in a folder `blobs`, named by their digests, and each revision of a
    model has links to them: a file that is replaced through one link changes in all revisions.

    Raises:
        InputError: If the target is such a link.
    """
    file = Path(os.path.realpath(target))
    if target.is_symlink() and file.parent.name == "blobs":
        raise InputError(
            f"{target} is a link to {file}, a file of a download cache, which other revisions may share: name another "
            f"file"
        )


def _refuse_devices(target: Path) -> None:
    """Refuse to replace a device or a pipe; a folder is refused by the system when the file is complete.

    Raises:
        InputError: If the target is a device or a pipe.
    """
    if target.exists() and not (target.is_file() or target.is_dir()):
        raise InputError(f"{target} is a device or a pipe, not a file; name the file to write")


@contextmanager
def _errors_named(target: Path, temporary: Path) -> Iterator[None]:
    """If an `OSError` names no file or the temporary file, which the user does not know, name the target instead."""
    try:
        yield
    except OSError as error:
        if error.filename is not None and str(error.filename) != str(temporary):
            raise
        raise OSError(error.errno, error.strerror, str(target)) from None


def save_copy(file: BinaryIO, target: Path) -> Path:
    """Copy a whole open file to a path, atomically; create the path's folder if it is missing; return the path."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(target) as copy:
        file.seek(0)
        shutil.copyfileobj(file, copy, 2**20)
    return target
