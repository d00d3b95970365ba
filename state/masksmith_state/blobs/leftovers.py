"""Deletes partial files of killed writers, and old files of the folder `statistics`, in a directory that is a store.

Files of other programs, which have names of another form, are kept.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator
from pathlib import Path

from .names import BLOB_FOLDERS, INCOMING, PIECE_LISTS, STATISTICS, is_blob_name, is_incoming_name
from .store import BlobStore

log = logging.getLogger(__name__)

LEFTOVER_AFTER_S = 3600.0


def clear_leftovers(store: BlobStore, age_s: float = LEFTOVER_AFTER_S) -> int:
    """Delete partial files of killed writers, and old files of the folder `statistics`.

    That folder is a cache of the workers, which compute its files again when they need them.

    In a bucket nothing is deleted here: its lifecycle rules delete partial uploads, and `Retention` deletes complete
    uploads that remain in `incoming/`.

    Args:
        store: The store.
        age_s: Seconds without a change after which a partial file is assumed to have no writer, and a file of the cache
            is old.

    Returns:
        The number of deleted files; their names are logged. If a file cannot be deleted, the others are deleted
        nevertheless; the number of such errors, and the first of them, are logged.
    """
    if store.objects.is_bucket:
        return 0
    count, failures = 0, list[OSError]()
    for name, path in _candidates(Path(store.url)):
        try:
            if _delete_older(path, time.time() - age_s):
                log.info("deleted leftover %s", name)
                count += 1
        except OSError as error:
            failures.append(error)
    if failures:
        log.error("%d leftover(s) cannot be deleted, the first: %s", len(failures), failures[0])
    return count


def _candidates(root: Path) -> Iterator[tuple[str, Path]]:
    for folder in (*BLOB_FOLDERS, INCOMING, PIECE_LISTS):
        for path in (root / folder).rglob("*"):
            name = path.relative_to(root).as_posix()
            if not path.is_symlink() and path.is_file() and _may_be_leftover(name):
                yield name, path


def _may_be_leftover(name: str) -> bool:
    """Whether a file of this name is a leftover once it is old.

    It is an upload that still has its name in `incoming/`, or the list of its digests; a part file of obstore; or a
    file of the cache.
    """
    # While obstore writes `name`, its part files are called `name#1` and so on.
    target, mark, number = name.partition("#")
    if is_incoming_name(target.removeprefix(f"{PIECE_LISTS}/")):
        return number.isdigit() or not number
    if mark:
        return number.isdigit() and is_blob_name(target.removeprefix(f"{PIECE_LISTS}/"))
    return is_blob_name(name) and name.startswith(f"{STATISTICS}/")


def _delete_older(path: Path, before: float) -> bool:
    with contextlib.suppress(FileNotFoundError):
        if path.stat().st_mtime < before:
            path.unlink()
            return True
    return False
