"""The blob store: reads and writes blobs by name, in a local directory or an S3-compatible bucket."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import time
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import obstore
from obstore.exceptions import GenericError
from obstore.store import LocalStore, from_url

T = TypeVar("T")
CHUNK_BYTES = 8 * 2**20
CONCURRENT_CHUNKS = 2
INCOMING = "incoming"
STATISTICS = "statistics"
LEFTOVER_AFTER_S = 3600.0
BUCKET_RETRIES, BUCKET_RETRY_TIMEOUT_S = 5, 15.0


class BlobStore:
    """Blobs by name; writes are atomic, so a blob that exists is complete.

    Args:
        url: A directory, or the URL of an object store such as `s3://bucket/prefix`.
        create: Create the directory if it does not exist. Only the service does so; for other processes a missing
            directory is an error, so that a worker does not create an empty one while the disk is unmounted.
    """

    def __init__(self, url: str, *, create: bool = False) -> None:
        self.url = url
        self._opened: Any = None
        self._directory_stat: os.stat_result | None = None
        if self._is_bucket:
            timeout = timedelta(seconds=BUCKET_RETRY_TIMEOUT_S)
            self._opened = from_url(url, retry_config={"max_retries": BUCKET_RETRIES, "retry_timeout": timeout})
        elif create:
            Path(url).mkdir(parents=True, exist_ok=True)

    @property
    def _is_bucket(self) -> bool:
        return "://" in self.url

    @property
    def _store(self) -> Any:
        if self._opened is None:
            self._directory_stat = self._stat_directory()
            self._opened = LocalStore(self.url)
        return self._opened

    def put(self, name: str, data: bytes) -> None:
        """Write a blob."""
        self._check_directory()
        obstore.put(self._store, name, data)

    def get(self, name: str) -> bytes:
        """Read a blob.

        Raises:
            FileNotFoundError: If it does not exist.
        """
        return self._read_checked(lambda: bytes(obstore.get(self._store, name).bytes()))

    def get_range(self, name: str, start: int, stop: int) -> bytes:
        """Read the bytes from `start` to `stop` (exclusive), or to the end of the blob.

        Raises:
            FileNotFoundError: If it does not exist.
        """
        if start >= stop:
            return b""
        return self._read_checked(lambda: bytes(obstore.get_range(self._store, name, start=start, end=stop)))

    def get_ranges(self, name: str, starts: Sequence[int], length: int) -> list[bytes]:
        """Read several ranges of `length` bytes each; adjacent ones are read together.

        Raises:
            FileNotFoundError: If the blob does not exist.
        """
        lengths = [length] * len(starts)
        parts = self._read_checked(lambda: obstore.get_ranges(self._store, name, starts=starts, lengths=lengths))
        return [bytes(part) for part in parts]

    def size(self, name: str) -> int | None:
        """Size of a blob in bytes; None if it does not exist."""
        with contextlib.suppress(FileNotFoundError):
            return int(self._read_checked(lambda: obstore.head(self._store, name))["size"])
        return None

    def _read_checked(self, read: Callable[[], T]) -> T:
        """Run a read, and distinguish a missing blob from a missing store.

        Raises:
            FileNotFoundError: If the blob does not exist.
            GenericError: If the store does not exist, or is another one.
        """
        try:
            return read()
        except FileNotFoundError:
            self._check_directory()
            # The directory may have been unmounted during the read; it exists now, so the second result is final.
            return read()

    def _check_directory(self) -> None:
        """Raise an error if the directory is missing, or is another one because its disk was unmounted."""
        if self._is_bucket:
            return
        current, first = self._stat_directory(), self._directory_stat
        if first is None:
            return
        # A remounted disk may get another device number, and a recreated directory another inode: only both together
        # mean another directory.
        if current.st_dev != first.st_dev and current.st_ino != first.st_ino:
            raise GenericError(f"the file system at {self.url} is not the one at the start: is its disk mounted?")

    def _stat_directory(self) -> os.stat_result:
        try:
            return os.stat(self.url)
        except OSError as error:
            raise GenericError(f"the store {self.url} is missing: {error.strerror}") from None

    def delete(self, name: str) -> None:
        """Delete a blob, if it exists."""
        with contextlib.suppress(FileNotFoundError):
            obstore.delete(self._store, name)

    def free_bytes(self) -> int | None:
        """Free bytes on the disk of a local directory; None for a bucket."""
        if self._is_bucket:
            return None
        return self._read_checked(lambda: shutil.disk_usage(self.url).free)

    def list(self, folder: str) -> Iterator[tuple[str, float]]:
        """List the blobs below a folder as (name, time of last change)."""
        for page in obstore.list(self._store, folder + "/", chunk_size=1000):
            for entry in page:
                yield str(entry["path"]), entry["last_modified"].timestamp()

    def rename(self, old: str, new: str) -> None:
        """Rename a blob, replacing any blob with the new name."""
        obstore.rename(self._store, old, new)

    async def put_stream(self, name: str, chunks: AsyncIterable[bytes]) -> None:
        """Write a blob from a stream of chunks; if `chunks` raises or the caller is canceled, no part of it is kept."""
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
        await obstore.put_async(
            self._store,
            name,
            source,
            use_multipart=True,
            chunk_size=CHUNK_BYTES,
            max_concurrency=CONCURRENT_CHUNKS,
        )

    def clear_leftovers(self, age_s: float = LEFTOVER_AFTER_S) -> int:
        """Delete partial files of killed writers from a local directory; buckets have lifecycle rules for that.

        Also deletes old statistics, which are computed again when needed.

        Args:
            age_s: Seconds since the last change after which a file has no writer any more.

        Returns:
            The number of files deleted.
        """
        if self._is_bucket:
            return 0
        before, count = time.time() - age_s, 0
        for path in Path(self.url).rglob("*"):
            # The part files of obstore are called `name#1` and so on; incoming uploads are below `incoming`.
            is_temporary = path.parent.name == INCOMING or path.relative_to(self.url).parts[0] == STATISTICS
            if not is_temporary and not re.search(r"#\d+$", path.name):
                continue
            with contextlib.suppress(FileNotFoundError):
                if path.is_file() and path.stat().st_mtime < before:
                    path.unlink()
                    count += 1
        return count

    async def stream(self, name: str) -> AsyncIterator[bytes]:
        """Read a blob in chunks.

        Raises:
            FileNotFoundError: If it does not exist.
        """
        blob = await obstore.get_async(self._store, name)
        async for chunk in blob.stream(min_chunk_size=2**20):
            yield bytes(chunk)


class _AbortableChunks:
    """Chunks for a writer, which cleans up if the iterator raises, but not if the write is canceled."""

    def __init__(self, chunks: AsyncIterable[bytes]) -> None:
        self._chunks = aiter(chunks)
        self._waiting_task: asyncio.Task[Any] | None = None
        self._is_aborted = False

    def abort(self) -> None:
        """Raise an error in place of the next chunk."""
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


def incoming_name(identifier: str) -> str:
    """Name of an upload while it is received, if its digest is not known in advance."""
    return f"{INCOMING}/{identifier}"


def upload_name(digest: str) -> str:
    """Name of an uploaded safetensors file."""
    return f"tensors/{digest[:2]}/{digest}"


def result_name(key: str) -> str:
    """Name of a shard's packed mask."""
    return f"masks/{key[:2]}/{key}"


def result_report_name(key: str) -> str:
    """Name of the report of a shard's result; written last, so that the mask exists if the report does."""
    return f"masks/{key[:2]}/{key}.json"


def weights_name(key: str) -> str:
    """Name of a shard's updated weights."""
    return f"weights/{key[:2]}/{key}"


def statistic_name(key: str) -> str:
    """Name of a cached statistic that all shards of a tensor use."""
    return f"{STATISTICS}/{key[:2]}/{key}"
