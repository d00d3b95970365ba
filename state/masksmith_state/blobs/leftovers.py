"""Deletes partial files of killed writers in a local store; only files with names that this program gives."""

from __future__ import annotations

import contextlib
import logging
import re
import time
from collections.abc import Iterator
from pathlib import Path

from .names import BLOB_FOLDERS, INCOMING, PIECES, STATISTICS, is_blob_name
from .store import BlobStore

log = logging.getLogger(__name__)

LEFTOVER_AFTER_S = 3600.0
_INCOMING = re.compile(rf"({PIECES}/)?{INCOMING}/[0-9a-f]{{32}}")


def clear_leftovers(store: BlobStore, age_s: float = LEFTOVER_AFTER_S) -> int:
    """Delete partial files of killed writers, and old statistics, which are computed again when needed.

    Buckets have lifecycle rules for partial uploads.

    Args:
        store: The store.
        age_s: Seconds since the last change after which a file has no writer any more.

    Returns:
        The number of files deleted, whose names are logged.
    """
    if store.objects.is_bucket:
        return 0
    deleted = [name for name, path in _leftovers(Path(store.url)) if _delete_older(path, time.time() - age_s)]
    for name in deleted:
        log.info("deleted leftover %s", name)
    return len(deleted)


def _leftovers(root: Path) -> Iterator[tuple[str, Path]]:
    for folder in (*BLOB_FOLDERS, INCOMING, PIECES):
        for path in (root / folder).rglob("*"):
            name = path.relative_to(root).as_posix()
            if not path.is_symlink() and path.is_file() and _is_leftover(name):
                yield name, path


def _is_leftover(name: str) -> bool:
    # The part files of obstore are called `name#1` and so on.
    whole, _, part = name.partition("#")
    if _INCOMING.fullmatch(whole):
        return part.isdigit() or not part
    is_own = is_blob_name(whole.removeprefix(f"{PIECES}/"))
    return is_own and (part.isdigit() or (not part and "#" not in name and whole.startswith(f"{STATISTICS}/")))


def _delete_older(path: Path, before: float) -> bool:
    with contextlib.suppress(FileNotFoundError):
        if path.stat().st_mtime < before:
            path.unlink()
            return True
    return False
