"""Stored piece lists, with a cache in memory; the piece list of a blob has the digests of the blob's pieces."""

from __future__ import annotations

import contextlib
import logging
import time
from collections import OrderedDict

from .names import DAMAGED, piece_list_name
from .objects import NotAFileError, Objects
from .piece_reader import BATCH_PIECES, MismatchError, NoListError
from .pieces import PIECE_BYTES, DamagedListError, PieceHasher, PieceList

log = logging.getLogger(__name__)

CACHED_LISTS = 64
"""Maximum number of lists in the cache."""


class PieceLists:
    """Piece lists, by the name of the blob.

    Args:
        objects: Where blobs and lists are stored.
        read_only: Do not store recomputed lists.
    """

    def __init__(self, objects: Objects, *, read_only: bool) -> None:
        self._objects, self._read_only = objects, read_only
        self._cache: OrderedDict[str, PieceList] = OrderedDict()

    def get(self, name: str, *, use_cache: bool, digest: str | None = None) -> PieceList:
        """Read the list of a blob; if it is missing or damaged, recompute it, and store it again unless read-only.

        Args:
            name: Name of the blob.
            use_cache: Return the list from the cache if it is there; otherwise it is read from the store.
            digest: Digest that the blob must have if its list is recomputed; if it is None, no list is recomputed.

        Raises:
            FileNotFoundError: If the list is missing or damaged, and the blob does not exist.
            MismatchError: If the list is missing or damaged, the blob exists, and `digest` is not the digest of the
                blob. If `digest` is None, the subclass `NoListError` is raised.
        """
        cached = self._cache.get(name) if use_cache else None
        if cached is not None:
            return cached
        try:
            pieces = PieceList.decode(name, self._objects.get(piece_list_name(name)))
        except (FileNotFoundError, DamagedListError, NotAFileError):
            pieces = self._recompute(name, digest)
        self._remember(name, pieces)
        return pieces

    def put(self, name: str, pieces: PieceList) -> None:
        """Store the list of a blob, and add it to the cache."""
        self._set_directory_aside(name)
        self._objects.put(piece_list_name(name), pieces.encode(name))
        self._remember(name, pieces)

    def delete(self, name: str) -> None:
        """Delete the list of a blob from the store and the cache."""
        self.forget(name)
        self._set_directory_aside(name)
        self._objects.delete(piece_list_name(name))

    def forget(self, name: str) -> None:
        """Remove the list of a blob from the cache only."""
        self._cache.pop(name, None)

    def _recompute(self, name: str, digest: str | None) -> PieceList:
        """Compute the list of a blob from the blob, and store it unless this is read-only."""
        size = self._objects.size(name)
        if size is None:
            raise FileNotFoundError(name)
        if digest is None:
            raise NoListError
        hasher = PieceHasher()
        for start in range(0, size, BATCH_PIECES * PIECE_BYTES):
            hasher.update(self._objects.get_range(name, start, min(size, start + BATCH_PIECES * PIECE_BYTES)))
        pieces = hasher.finish()
        if pieces.digest != digest:
            raise MismatchError
        if not self._read_only:
            log.warning(
                "blob %s is intact, but the list of its pieces' digests was missing or damaged: it is stored again",
                name,
            )
            self.put(name, pieces)
        return pieces

    def _set_directory_aside(self, name: str) -> None:
        """If a directory is in place of the list, move it to the folder `damaged`, so that the list can be written."""
        list_name = piece_list_name(name)
        if self._objects.is_directory(list_name):
            self._objects.rename(list_name, f"{DAMAGED}/{list_name}.{time.time_ns()}")
            log.error("%s is a directory: set aside in %s/", list_name, DAMAGED)

    def _remember(self, name: str, pieces: PieceList) -> None:
        self._cache[name] = pieces
        while len(self._cache) > CACHED_LISTS:
            with contextlib.suppress(KeyError):  # Another thread may have emptied the cache.
                self._cache.popitem(last=False)
