"""Log files of the local processes: rotated at the start, and while a process has its file open."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import BinaryIO

MAX_LOG_BYTES = 16 * 2**20
"""Size from which a log file is rotated; one earlier file is kept."""
COPY_BYTES = 2**20


def rotate_closed(path: Path) -> None:
    """Rename the log file of an earlier run, if it is large."""
    if path.exists() and path.stat().st_size > MAX_LOG_BYTES:
        path.replace(_earlier(path))


def rotate_open(path: Path) -> bool:
    """Copy a log file to which processes append, and empty it, if it is large; returns whether it was.

    The processes go on at the beginning of the emptied file. What one of them writes after the last piece was copied,
    and before the file is emptied, is lost: at most what it writes within microseconds.
    """
    if path.stat().st_size <= MAX_LOG_BYTES:
        return False
    part = path.with_suffix(".log.part")
    with path.open("rb") as source, _opened(part) as copy:
        shutil.copyfileobj(source, copy, COPY_BYTES)
        copy.flush()
        while piece := source.read(COPY_BYTES):
            copy.write(piece)
        os.truncate(path, 0)
    part.replace(_earlier(path))
    return True


def _earlier(path: Path) -> Path:
    return path.with_suffix(".log.1")


def _opened(path: Path) -> BinaryIO:
    return open(path, "wb", opener=lambda name, flags: os.open(name, flags, 0o600))
