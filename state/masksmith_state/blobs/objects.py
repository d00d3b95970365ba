"""Reads and writes objects by name, in a local directory or an S3-compatible bucket, without checks of the content."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import stat
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import obstore
from obstore.exceptions import GenericError
from obstore.store import LocalStore, from_url

from masksmith_state.errors import InstallationError
from masksmith_state.panics import panics_as

T = TypeVar("T")
CHUNK_BYTES = 8 * 2**20
CONCURRENT_CHUNKS = 2
MAX_COPY_BYTES = 5 * 2**30
"""Largest object of a bucket that one request can copy; a larger one is read and written again."""
BUCKET_RETRIES, BUCKET_RETRY_TIMEOUT_S = 5, 15.0


class NotAFileError(GenericError):
    """A pipe, a device or a socket is in place of an object; a read of it might never end."""


class Objects:
    """Objects by name; writes are atomic, so an object that exists was written completely.

    Args:
        url: A directory, or the URL of an object store such as `s3://bucket/prefix`.
        create: Create the directory if it does not exist, as the service and `restore` do. Otherwise a missing
            directory is an error, so that a worker does not create an empty one while the disk is unmounted.

    Raises:
        InstallationError: If the URL of a bucket, or one of its environment variables (`AWS_...`), is invalid.
    """

    def __init__(self, url: str, *, create: bool = False) -> None:
        self.url = url
        self._opened_store: Any = None
        self._directory_stat: os.stat_result | None = None
        if self.is_bucket:
            timeout = timedelta(seconds=BUCKET_RETRY_TIMEOUT_S)
            try:
                self._opened_store = from_url(
                    url, retry_config={"max_retries": BUCKET_RETRIES, "retry_timeout": timeout}
                )
            except (GenericError, ValueError) as error:
                reason = str(error).partition("\n")[0]
                raise InstallationError(
                    f"the bucket {url} cannot be used with the AWS_... settings: {reason}"
                ) from None
        elif create:
            Path(url).mkdir(parents=True, exist_ok=True)

    @property
    def is_bucket(self) -> bool:
        """Whether this is a bucket, and not a local directory."""
        return "://" in self.url

    @property
    def _store(self) -> Any:
        if self._opened_store is None:
            self._directory_stat = self._stat_directory()
            self._opened_store = LocalStore(self.url)
        return self._opened_store

    def put(self, name: str, data: bytes) -> None:
        """Write an object, replacing any object with this name."""
        self._check_directory()
        with panics_as(GenericError):
            obstore.put(self._store, name, data)

    def put_pieces(self, name: str, pieces: Iterable[bytes]) -> None:
        """Write an object as `put` does, from its pieces, one after the other."""
        self._check_directory()
        with panics_as(GenericError), obstore.open_writer(self._store, name, buffer_size=CHUNK_BYTES) as writer:
            for piece in pieces:
                writer.write(piece)

    def get(self, name: str) -> bytes:
        """Read an object.

        Raises:
            FileNotFoundError: If it does not exist.
            NotAFileError: If it is a pipe, a device or a socket.
        """
        self._check_not_special_file(name)
        return self._read_checked(lambda: bytes(obstore.get(self._store, name).bytes()))

    def get_range(self, name: str, start: int, stop: int) -> bytes:
        """Read the bytes from `start` to `stop` (exclusive), or to the end of the object if that comes first.

        For an empty range nothing is read, and no error is raised.

        Raises:
            FileNotFoundError: If the object does not exist.
            GenericError: If `start` is at or after the end of the object.
            NotAFileError: If it is a pipe, a device or a socket; a subclass of GenericError.
        """
        if start >= stop:
            return b""
        self._check_not_special_file(name)
        return self._read_checked(lambda: bytes(obstore.get_range(self._store, name, start=start, end=stop)))

    def get_ranges(self, name: str, starts: Sequence[int], stops: Sequence[int]) -> list[bytes]:
        """Read several ranges from start to stop (exclusive); adjacent ones are read together.

        Raises:
            FileNotFoundError: If the object does not exist.
            NotAFileError: If it is a pipe, a device or a socket.
        """
        self._check_not_special_file(name)
        parts = self._read_checked(lambda: obstore.get_ranges(self._store, name, starts=starts, ends=stops))
        return [bytes(part) for part in parts]

    def size(self, name: str) -> int | None:
        """Size of an object in bytes; None for a directory or a missing object.

        A pipe, a device or a socket counts as 0 bytes. The blob store then finds another size in the blob's list of
        pieces, and treats the blob as damaged.
        """
        if self._is_special_file(name):
            return 0
        with contextlib.suppress(FileNotFoundError):
            return int(self._read_checked(lambda: obstore.head(self._store, name))["size"])
        return None

    def _is_special_file(self, name: str) -> bool:
        """Whether a pipe, a device or a socket is in place of an object: a read of it might never end."""
        if self.is_bucket:
            return False
        try:
            mode = os.stat(os.path.join(self.url, name)).st_mode
        except OSError:
            return False
        return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))

    def is_directory(self, name: str) -> bool:
        """Whether a directory is in place of an object, so that the object cannot be written; never in a bucket."""
        return not self.is_bucket and os.path.isdir(os.path.join(self.url, name))

    def remove_special_file(self, name: str) -> bool:
        """Delete a pipe, a device or a socket that is in place of an object; returns whether there was one."""
        if not self._is_special_file(name):
            return False
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(self.url, name))
        return True

    def _check_not_special_file(self, name: str) -> None:
        if self._is_special_file(name):
            raise NotAFileError(f"{name} in the store {self.url} is no regular file")

    def _read_checked(self, read: Callable[[], T]) -> T:
        """Run a read, and distinguish a missing object from a missing store.

        Raises:
            FileNotFoundError: If the object does not exist.
            GenericError: If the store's directory is missing, or is no longer the same (see `_check_directory`).
        """
        with panics_as(GenericError):
            try:
                return read()
            except FileNotFoundError:
                self._check_directory()
                # The directory may have been unmounted during the read; it exists now, so the second result is final.
                return read()

    def _check_directory(self) -> None:
        """Raise an error if the directory is missing, or is another one because its disk was unmounted."""
        if self.is_bucket:
            return
        current_stat, first_stat = self._stat_directory(), self._directory_stat
        if first_stat is None:  # The store has not been opened.
            return
        # A remounted disk may get another device number, and a recreated directory another inode: only both together
        # mean another directory.
        if current_stat.st_dev != first_stat.st_dev and current_stat.st_ino != first_stat.st_ino:
            raise GenericError(f"the file system at {self.url} is not the one at the start: is its disk mounted?")

    def _stat_directory(self) -> os.stat_result:
        try:
            return os.stat(self.url)
        except OSError as error:
            raise GenericError(f"the store {self.url} is missing: {error.strerror}") from None

    def create(self, name: str, data: bytes) -> None:
        """Write an object that does not exist yet.

        Raises:
            AlreadyExistsError: If it exists.
        """
        self._check_directory()
        with panics_as(GenericError):
            obstore.put(self._store, name, data, mode="create", use_multipart=False)

    def top_level(self) -> Iterator[str]:
        """List the names of files and folders at the top, those of other programs included."""
        if not self.is_bucket:
            self._check_directory()
            yield from os.listdir(self.url)
            return
        listing = obstore.list_with_delimiter(self._store)
        yield from (str(prefix) for prefix in listing["common_prefixes"])
        yield from (str(entry["path"]) for entry in listing["objects"])

    def delete(self, name: str) -> None:
        """Delete an object, if it exists.

        Raises:
            GenericError: If the store fails, or its directory is missing or no longer the same.
        """
        try:
            obstore.delete(self._store, name)
        except FileNotFoundError:
            self._check_directory()

    def free_bytes(self) -> int | None:
        """Free bytes on the disk of a local directory; None for a bucket."""
        if self.is_bucket:
            return None
        return self._read_checked(lambda: shutil.disk_usage(self.url).free)

    def list(self, folder: str) -> Iterator[tuple[str, float]]:
        """List the objects below a folder as (name, time of the last change in seconds since 1970)."""
        for page in obstore.list(self._store, folder + "/", chunk_size=1000):
            for entry in page:
                yield str(entry["path"]), entry["last_modified"].timestamp()

    def rename(self, old: str, new: str) -> None:
        """Rename an object, replacing any object with the new name.

        In a bucket this is a copy and a deletion.

        Raises:
            FileNotFoundError: If the object `old` does not exist.
        """
        size = self.size(old) if self.is_bucket else None
        if size is None or size <= MAX_COPY_BYTES:
            obstore.rename(self._store, old, new)
            return
        starts = range(0, size, CHUNK_BYTES)
        self.put_pieces(new, (self.get_range(old, start, min(size, start + CHUNK_BYTES)) for start in starts))
        self.delete(old)

    async def put_stream(self, name: str, chunks: AsyncIterable[bytes]) -> None:
        """Write an object from a stream of chunks; if `chunks` raises or the caller is canceled, nothing is kept."""
        self._check_directory()
        source = _AbortableChunks(chunks)
        write = asyncio.ensure_future(self._write(name, source))
        try:
            await asyncio.shield(write)
        except asyncio.CancelledError:
            source.abort()
            with contextlib.suppress(Exception):
                await write
            raise

    async def _write(self, name: str, source: _AbortableChunks) -> None:
        with panics_as(GenericError):
            await obstore.put_async(
                self._store,
                name,
                source,
                use_multipart=True,
                chunk_size=CHUNK_BYTES,
                max_concurrency=CONCURRENT_CHUNKS,
            )

    async def stream(self, name: str) -> AsyncIterator[bytes]:
        """Read an object in chunks.

        Raises:
            FileNotFoundError: If it does not exist.
            NotAFileError: If it is a pipe, a device or a socket.
        """
        await asyncio.to_thread(self._check_not_special_file, name)
        with panics_as(GenericError):
            result = await obstore.get_async(self._store, name)
            async for chunk in result.stream(min_chunk_size=2**20):
                yield bytes(chunk)


class _AbortableChunks:
    """Chunks that can be aborted: obstore deletes a partial object if the iterator raises, not if it is canceled."""

    def __init__(self, chunks: AsyncIterable[bytes]) -> None:
        self._chunks = aiter(chunks)
        self._waiting_task: asyncio.Task[Any] | None = None
        self._is_aborted = False

    def abort(self) -> None:
        """Make the iterator raise an error instead of returning the next chunk."""
        self._is_aborted = True
        if self._waiting_task is not None:
            self._waiting_task.cancel()

    def __aiter__(self) -> _AbortableChunks:
        return self

    async def __anext__(self) -> bytes:
        if self._is_aborted:
            raise ConnectionAbortedError
        self._waiting_task = asyncio.current_task()
        try:
            return await anext(self._chunks)
        except asyncio.CancelledError:
            raise ConnectionAbortedError from None
        finally:
            self._waiting_task = None
