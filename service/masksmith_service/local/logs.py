"""Log files of the local processes: rotated at the start, and while a process has its file open."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import BinaryIO

MAX_LOG_BYTES = 16 * 2**20
"""A log file of more bytes is rotated; one earlier file is kept."""
COPY_BYTES = 2**20
"""Size of the pieces in which a log file is copied."""


def rotate_closed(path: Path) -> None:
    """Rename the log file of an earlier run, if there is one and it is larger than `MAX_LOG_BYTES`."""
    if path.exists() and path.stat().st_size > MAX_LOG_BYTES:
        path.replace(_earlier_path(path))


def rotate_open(path: Path) -> bool:
    """Copy and empty an open log file if it is larger than `MAX_LOG_BYTES`; return whether it was emptied.

    The processes that append to it go on at the beginning of the emptied file. What one of them writes after the last
    piece was copied, and before the file is emptied, is lost: at most what it writes within microseconds.

    Raises:
        OSError: If it cannot be copied; the log file is then as before, and no copy is left.
    """
    if path.stat().st_size <= MAX_LOG_BYTES:
        return False
    part = path.with_suffix(".log.part")
    try:
        _move_content(path, part)
    except OSError:
        # The disk may be full, and other processes may need the space.
        part.unlink(missing_ok=True)
        raise
    part.replace(_earlier_path(path))
    return True


def _move_content(path: Path, part: Path) -> None:
    """Copy an open log file, and empty it once the copy is complete."""
    with path.open("rb") as source, _create_private(part) as copy:
        shutil.copyfileobj(source, copy, COPY_BYTES)
        copy.flush()
        # What processes appended during the copy above is little; it is copied just before the file is emptied.
        while piece := source.read(COPY_BYTES):
            copy.write(piece)
        copy.flush()
        os.truncate(path, 0)


def _earlier_path(path: Path) -> Path:
    return path.with_suffix(".log.1")


def _create_private(path: Path) -> BinaryIO:
    return open(path, "wb", opener=lambda name, flags: os.open(name, flags, 0o600))
