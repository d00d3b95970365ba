"""Deletes many blobs; if some cannot be deleted, the others are deleted nevertheless."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

from obstore.exceptions import BaseError as StoreError

from .names import incoming_name
from .store import BlobStore

log = logging.getLogger(__name__)


def count_deletions(store: BlobStore, names: Iterable[str], delete: Callable[[str], bool]) -> int:
    """Call `delete` for each name; return how many calls returned True.

    A blob that cannot be deleted (another user's folder, a damaged disk, a lock of the bucket) does not stop the
    deletion of the others: their number is logged, with the name and the error of the first.

    Raises:
        StoreError: If the store is unavailable.
    """
    count, failures = 0, list[tuple[str, Exception]]()
    for name in names:
        try:
            count += delete(name)
        except (StoreError, OSError) as error:
            store.size(incoming_name("probe"))  # Raises an error if the store is unavailable.
            failures.append((name, error))
    if failures:
        name, first_error = failures[0]
        reason = str(first_error).partition("\n")[0]
        log.error("%d blob(s) cannot be deleted, the first is %s: %s", len(failures), name, reason)
    return count
