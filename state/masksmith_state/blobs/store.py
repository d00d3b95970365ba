"""The blob store: blobs by name, each checked whenever it is read, as a whole or in ranges.

A blob is checked in pieces. The list of its pieces' digests (`PieceList`) is written before the blob itself, so that
every blob that exists can be checked. Small blobs that are always read as a whole (reports and statistics) end with a
digest instead. A blob is damaged if its bytes do not have these digests, or if it is no regular file. Unless the store
is read-only, a damaged blob is set aside: moved to the folder `damaged`, so that it is computed or sent again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterator, Sequence
from itertools import count
from typing import TypeVar

from blake3 import blake3
from obstore.exceptions import BaseError as StoreError

from masksmith_state.errors import DamagedBlobError, ReplacedBlobError, UncheckedBlobError

from .names import DAMAGED, INCOMING, digest_of_upload, is_blob_name
from .objects import NotAFileError, Objects
from .piece_lists import PieceLists
from .piece_reader import MismatchError, NoListError, OtherDigestError, read_ranges, verify_pieces
from .pieces import PIECE_BYTES, PieceHasher, PieceList, seal, unseal

T = TypeVar("T")
log = logging.getLogger(__name__)


class BlobStore:
    """Blobs by name; writes are atomic, and reads are checked.

    Args:
        url: A directory, or the URL of an object store such as `s3://bucket/prefix`.
        create: Create the directory if it does not exist; see `Objects`.
        read_only: Leave damaged blobs where they are, and do not write lost lists of digests again.

    Attributes:
        objects: The stored objects, which are read without checks.
    """

    def __init__(self, url: str, *, create: bool = False, read_only: bool = False) -> None:
        self.url, self.objects, self.read_only = url, Objects(url, create=create), read_only
        self._lists = PieceLists(self.objects, read_only=read_only)

    def put(self, name: str, data: bytes) -> str:
        """Write a blob; return its BLAKE3 digest."""
        pieces = PieceList.of(data)
        self._set_directory_aside(name)
        self._lists.put(name, pieces)
        try:
            self.objects.put(name, data)
        except BaseException:
            self._discard_list(name)
            raise
        return pieces.digest

    def put_sealed(self, name: str, data: bytes) -> None:
        """Write a small blob with its digest, in one step."""
        self._set_directory_aside(name)
        self.objects.put(name, seal(name, data))

    def get_sealed(self, name: str) -> bytes:
        """Read a small blob that was written by `put_sealed`.

        Raises:
            FileNotFoundError: If it does not exist.
            DamagedBlobError: If it is damaged.
        """
        with contextlib.suppress(NotAFileError):
            data = unseal(name, self.objects.get(name))
            if data is not None:
                return data
        raise self._handle_damage(name)

    def get(self, name: str, digest: str | None = None) -> bytes:
        """Read a blob.

        Args:
            name: Its name.
            digest: The BLAKE3 digest that it must have, if a record contains one.

        Raises:
            FileNotFoundError: If it does not exist.
            DamagedBlobError: If it is damaged. It is then set aside, unless the store is read-only. There are two
                subclasses for blobs that are not known to be damaged, and stay where they are:
            ReplacedBlobError: If it agrees with its list, but does not have `digest`: another job may have written it.
            UncheckedBlobError: If its list is lost, and cannot be computed again, since no digest of the blob is known.
        """

        def read(pieces: PieceList) -> bytes:
            data = self.objects.get(name)
            if len(data) != pieces.size or blake3(data).hexdigest() != pieces.digest:
                raise MismatchError
            return data

        return self._read(name, read, digest)

    def get_range(self, name: str, start: int, stop: int, digest: str | None = None) -> bytes:
        """Read the bytes from `start` to `stop` (exclusive), or to the end of the blob; checks the pieces they touch.

        For an empty range nothing is read, even if the blob does not exist. For `digest` and errors, see `get`.
        """
        return self.get_ranges(name, [start], stop - start, digest)[0] if start < stop else b""

    def get_ranges(self, name: str, starts: Sequence[int], length: int, digest: str | None = None) -> list[bytes]:
        """Read the ranges of `length` bytes from `starts` (ascending); checks the pieces that the ranges touch.

        A range is cut at the end of the blob. For `digest` and errors, see `get`.
        """
        return self._read(name, lambda pieces: read_ranges(self.objects, name, pieces, starts, length), digest)

    def verify(self, name: str, digest: str | None = None) -> None:
        """Check a whole blob; raises as `get` does."""
        self._read(name, lambda pieces: verify_pieces(self.objects, name, pieces), digest)

    def is_intact(self, name: str, digest: str | None = None) -> bool:
        """Whether a blob exists, can be checked, is not damaged, and has `digest`, if it is given.

        A damaged blob is set aside, unless the store is read-only.
        """
        try:
            self.verify(name, digest)
        except (FileNotFoundError, DamagedBlobError):
            return False
        return True

    def size(self, name: str) -> int | None:
        """Size of a blob in bytes; None if it does not exist."""
        return self.objects.size(name)

    def delete(self, name: str) -> None:
        """Delete a blob, if it exists, and its list of digests."""
        self._lists.forget(name)
        self._set_directory_aside(name)
        self.objects.delete(name)
        self._lists.delete(name)

    def free_bytes(self) -> int | None:
        """Free bytes on the disk of a local directory; None for a bucket."""
        return self.objects.free_bytes()

    def list(self, folder: str) -> Iterator[tuple[str, float]]:
        """List the blobs below a folder as pairs of name and time of last change."""
        return self.objects.list(folder)

    def rename(self, old: str, new: str) -> None:
        """Rename a blob and its list, without checking the blob; a blob that has the new name is replaced."""
        pieces = self._read(old, lambda pieces: pieces)
        self._set_directory_aside(new)
        self._lists.put(new, pieces)
        self.objects.rename(old, new)
        self.delete(old)

    async def put_stream(self, name: str, chunks: AsyncIterable[bytes], hasher: PieceHasher | None = None) -> None:
        """Write a blob from a stream of chunks; if this fails or is canceled, no part of the blob is kept.

        Args:
            name: Name of the blob.
            chunks: Its bytes.
            hasher: A hasher that the iterator `chunks` updates; by default this method hashes the chunks.
        """
        await asyncio.to_thread(self._set_directory_aside, name)
        source = self._yield_then_write_list(name, chunks, hasher or PieceHasher(), update_hasher=hasher is None)
        try:
            await self.objects.put_stream(name, source)
        except BaseException:
            await asyncio.to_thread(self._discard_list, name)
            raise

    async def stream(self, name: str, digest: str | None = None) -> AsyncIterator[bytes]:
        """Read a blob in pieces, each of which is checked before it is yielded.

        Raises:
            FileNotFoundError: If it does not exist.
            DamagedBlobError: As `get`, and if it is replaced meanwhile; the pieces before that have been yielded.
        """
        pieces = await asyncio.to_thread(self._read, name, lambda pieces: pieces, digest)
        number, piece = 0, bytearray()
        with contextlib.suppress(NotAFileError):  # A pipe or a device has no bytes, so the check below fails.
            async for chunk in self.objects.stream(name):
                piece += chunk
                while len(piece) >= PIECE_BYTES:
                    yield await self._check_piece(name, pieces, number, bytes(piece[:PIECE_BYTES]), digest)
                    number += 1
                    del piece[:PIECE_BYTES]
        # The last piece may be shorter than the others. If bytes are missing, the check of the next piece fails.
        if piece or number * PIECE_BYTES < pieces.size:
            yield await self._check_piece(name, pieces, number, bytes(piece), digest)

    def set_aside(self, name: str) -> None:
        """Move a blob, if it exists, to the folder `damaged`, under its name and the time; delete its list.

        A pipe, a device or a socket in its place is deleted: it has no content, and the method `list` does not yield
        it, so that it would never be deleted from `damaged`.
        """
        self._lists.forget(name)
        if not self.objects.remove_special_file(name):
            with contextlib.suppress(FileNotFoundError):
                self.objects.rename(name, self._free_name_in_damaged(name))
        self._lists.delete(name)

    def _free_name_in_damaged(self, name: str) -> str:
        """Name in the folder `damaged`, with the time in milliseconds, or the next time whose name is not taken."""
        for milliseconds in count(time.time_ns() // 10**6):
            free_name = f"{DAMAGED}/{name}.{milliseconds}"
            if self.objects.size(free_name) is None and not self.objects.is_directory(free_name):
                break
        return free_name

    def delete_damaged(self, name: str) -> None:
        """Delete the blobs of this name that were set aside."""
        name_without_time = f"{DAMAGED}/{name}"
        for damaged_name, _ in self.objects.list(name_without_time.rpartition("/")[0]):
            if damaged_name.rpartition(".")[0] == name_without_time:
                self.objects.delete(damaged_name)

    def is_set_aside(self, name: str) -> bool:
        """Whether a blob of this name was set aside, and was not deleted since."""
        name_without_time = f"{DAMAGED}/{name}"
        damaged = self.objects.list(name_without_time.rpartition("/")[0])
        return any(damaged_name.rpartition(".")[0] == name_without_time for damaged_name, _ in damaged)

    def list_damaged(self) -> Iterator[tuple[str, float]]:
        """List the blobs that were set aside, as pairs of name below `damaged` and time at which each was moved.

        The time is that in the name: in a directory, a file that is moved keeps its time of last change.
        """
        for name, _ in self.objects.list(DAMAGED):
            name_below = name.removeprefix(f"{DAMAGED}/")
            original, _, milliseconds = name_below.rpartition(".")
            if is_blob_name(original) and milliseconds.isdecimal():
                yield name_below, int(milliseconds) / 1000

    def _read(self, name: str, read: Callable[[PieceList], T], digest: str | None = None) -> T:
        """Read and check a blob; after a mismatch, read its list without the cache, and read and check once more.

        Another process may have replaced the blob, so that the cached list is outdated. After a second mismatch, the
        blob is handled as damaged, except in two cases in which it stays where it is: if its list is lost and no digest
        of the blob is known, or if the blob agrees with its list, but does not have `digest`. For errors, see `get`.
        """
        digest = digest or digest_of_upload(name)
        mismatch = MismatchError()
        for use_cache in (True, False):
            try:
                pieces = self._lists.get(name, use_cache=use_cache, digest=digest)
                if digest not in (None, pieces.digest):
                    raise OtherDigestError(pieces)
                return self._read_once(name, pieces, read)
            except MismatchError as error:
                mismatch = error
        if isinstance(mismatch, NoListError):
            log.error("blob %s cannot be checked: the list of its digests is missing or damaged", name)
            raise UncheckedBlobError(name)
        if isinstance(mismatch, OtherDigestError) and self._is_replaced(name, mismatch.pieces):
            raise ReplacedBlobError(name)
        raise self._handle_damage(name)

    def _is_replaced(self, name: str, pieces: PieceList) -> bool:
        """Whether a blob that does not have the digest that the caller expects agrees with its list.

        False for an upload with a digest in its name: if its bytes have another digest, it is damaged.
        """
        if digest_of_upload(name) is not None:
            return False
        try:
            self._read_once(name, pieces, lambda pieces: verify_pieces(self.objects, name, pieces))
        except MismatchError:
            return False
        return True

    def _read_once(self, name: str, pieces: PieceList, read: Callable[[PieceList], T]) -> T:
        """Call `read`; if the store raises an error, find its reason.

        Raises:
            FileNotFoundError: If the blob does not exist.
            MismatchError: If `read` finds a mismatch, or if the store raises an error and the blob does not have the
                size in its list.
            StoreError: If the store raises an error for another reason.
        """
        try:
            return read(pieces)
        except StoreError:
            # The store raises this error, too, for a range that begins after the end of the blob.
            size = self.objects.size(name)
            if size is None:
                raise FileNotFoundError(name) from None
            if size != pieces.size:
                raise MismatchError from None
            raise

    def _handle_damage(self, name: str) -> DamagedBlobError:
        """Set a damaged blob aside, unless the store is read-only; return the error."""
        if not self.read_only:
            self.set_aside(name)
            log.error("blob %s is damaged: set aside in %s/", name, DAMAGED)
        return DamagedBlobError(name, is_set_aside=not self.read_only)

    def _set_directory_aside(self, name: str) -> None:
        """Set a directory aside that is in place of a blob; otherwise the blob could not be written or deleted."""
        if self.objects.is_directory(name):
            self._handle_damage(name)

    def _discard_list(self, name: str) -> None:
        """Delete the list of a blob that could not be written, if nothing is lost by it.

        Another process may be writing the same blob, or may finish it between the test for the blob and the deletion of
        the list. So only two kinds of list are deleted: that of an upload with a digest in its name, because it can be
        computed again from the upload, and that of an upload in `INCOMING`, which is used by this writer only. Any
        other list is kept; `Retention` deletes it if it remains without a blob.
        """
        self._lists.forget(name)
        if name.startswith(f"{INCOMING}/") or digest_of_upload(name) is not None:
            with contextlib.suppress(StoreError, FileNotFoundError):
                if self.objects.size(name) is None:
                    self._lists.delete(name)

    async def _yield_then_write_list(
        self, name: str, chunks: AsyncIterable[bytes], hasher: PieceHasher, *, update_hasher: bool
    ) -> AsyncIterator[bytes]:
        """Yield the chunks of a blob, and write its list after the last chunk, before the stream ends."""
        async for chunk in chunks:
            if update_hasher:
                hasher.update(chunk)
            yield chunk
        await asyncio.to_thread(self._lists.put, name, hasher.finish())

    async def _check_piece(self, name: str, pieces: PieceList, number: int, piece: bytes, digest: str | None) -> bytes:
        """Return a piece that has its digest; otherwise check the whole blob, and raise DamagedBlobError."""
        if not pieces.is_intact(number, piece):
            await asyncio.to_thread(self.verify, name, digest)
            # The blob is intact now: another process has replaced it. But pieces of the old blob may have been yielded.
            raise DamagedBlobError(name, is_set_aside=False)
        return piece
