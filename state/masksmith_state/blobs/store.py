"""The blob store: uploads and results by name, in a local directory or an S3-compatible bucket, one code path."""

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
BUCKET_RETRIES, BUCKET_PATIENCE_S = 5, 15.0


class BlobStore:
    """Blobs by name. What exists is complete: a blob appears whole or not at all.

    Args:
        url: A directory, or an object store's URL such as `s3://bucket/prefix`.
        make: Make the directory where there is none. One process does so when the store is founded; others wait for
            it, so that a process that starts while the directory is unmounted puts no empty one in its place.
    """

    def __init__(self, url: str, *, make: bool = False) -> None:
        self.url = url
        self._opened: Any = None
        self._place: os.stat_result | None = None
        if self._is_bucket:
            patience = timedelta(seconds=BUCKET_PATIENCE_S)
            self._opened = from_url(url, retry_config={"max_retries": BUCKET_RETRIES, "retry_timeout": patience})
        elif make:
            Path(url).mkdir(parents=True, exist_ok=True)

    @property
    def _is_bucket(self) -> bool:
        return "://" in self.url

    @property
    def _store(self) -> Any:
        if self._opened is None:
            self._place = self._look()
            self._opened = LocalStore(self.url)
        return self._opened

    def put(self, name: str, data: bytes) -> None:
        """Write a blob whole."""
        self._check_place()
        obstore.put(self._store, name, data)

    def get(self, name: str) -> bytes:
        """Read a blob whole.

        Raises:
            FileNotFoundError: If there is none.
        """
        return self._found(lambda: bytes(obstore.get(self._store, name).bytes()))

    def get_range(self, name: str, start: int, stop: int) -> bytes:
        """Read the bytes from `start` to `stop` (exclusive); fewer where the blob ends.

        Raises:
            FileNotFoundError: If there is none.
        """
        if start >= stop:
            return b""
        return self._found(lambda: bytes(obstore.get_range(self._store, name, start=start, end=stop)))

    def get_ranges(self, name: str, starts: Sequence[int], length: int) -> list[bytes]:
        """Read several ranges of `length` bytes each, neighbours in one go.

        Raises:
            FileNotFoundError: If there is none.
        """
        lengths = [length] * len(starts)
        parts = self._found(lambda: obstore.get_ranges(self._store, name, starts=starts, lengths=lengths))
        return [bytes(part) for part in parts]

    def size(self, name: str) -> int | None:
        """Give a blob's size, or None where there is none."""
        with contextlib.suppress(FileNotFoundError):
            return int(self._found(lambda: obstore.head(self._store, name))["size"])
        return None

    def _found(self, read: Callable[[], T]) -> T:
        """Read, and distinguish a missing blob from a missing store."""
        try:
            return read()
        except FileNotFoundError:
            self._check_place()
            # The directory may have been away, and be back: what is missing now is missing.
            return read()

    def _check_place(self) -> None:
        """Refuse a directory that is gone, or that is no longer the one it was because its disk was unmounted."""
        if self._is_bucket:
            return
        now = self._look()
        if self._place is None:
            return
        # A disk that is mounted again may have another device number, and a folder made anew another inode.
        if now.st_dev != self._place.st_dev and now.st_ino != self._place.st_ino:
            raise GenericError(f"another file system lies at {self.url} than at the start: is its disk mounted?")

    def _look(self) -> os.stat_result:
        try:
            return os.stat(self.url)
        except OSError as error:
            raise GenericError(f"the store {self.url} is gone: {error.strerror}") from None

    def delete(self, name: str) -> None:
        """Delete a blob; deleting what does not exist changes nothing."""
        with contextlib.suppress(FileNotFoundError):
            obstore.delete(self._store, name)

    def free_bytes(self) -> int | None:
        """Bytes free on the disk of a local directory; None for a bucket."""
        if self._is_bucket:
            return None
        return self._found(lambda: shutil.disk_usage(self.url).free)

    def list(self, folder: str) -> Iterator[tuple[str, float]]:
        """Give the blobs below a folder, each with the time when it was written."""
        for page in obstore.list(self._store, folder + "/", chunk_size=1000):
            for entry in page:
                yield str(entry["path"]), entry["last_modified"].timestamp()

    def rename(self, old: str, new: str) -> None:
        """Give a blob another name, replacing what had it."""
        obstore.rename(self._store, old, new)

    async def put_stream(self, name: str, chunks: AsyncIterable[bytes]) -> None:
        """Write a blob as it arrives; when `chunks` raises, or the caller is canceled, nothing of it remains."""
        self._check_place()
        feed = _Feed(chunks)
        writing = asyncio.ensure_future(self._write(name, feed))
        try:
            await asyncio.shield(writing)
        except asyncio.CancelledError:
            feed.cut()
            with contextlib.suppress(Exception):
                await writing
            raise

    async def _write(self, name: str, feed: _Feed) -> None:
        await obstore.put_async(
            self._store,
            name,
            feed,
            use_multipart=True,
            chunk_size=CHUNK_BYTES,
            max_concurrency=CONCURRENT_CHUNKS,
        )

    def clear_leftovers(self, age_s: float = LEFTOVER_AFTER_S) -> int:
        """Delete what writers that were killed left half-written in a local directory; buckets have rules for that.

        Statistics go too: they are worked out again when they are needed.

        Args:
            age_s: Seconds without a change after which no writer can be left.

        Returns:
            The number of files deleted.
        """
        if self._is_bucket:
            return 0
        until, count = time.time() - age_s, 0
        for path in Path(self.url).rglob("*"):
            # The store's own part files are called `name#1` and so on; ours are below `incoming`.
            passing = path.parent.name == INCOMING or path.relative_to(self.url).parts[0] == STATISTICS
            if not passing and not re.search(r"#\d+$", path.name):
                continue
            with contextlib.suppress(FileNotFoundError):
                if path.is_file() and path.stat().st_mtime < until:
                    path.unlink()
                    count += 1
        return count

    async def stream(self, name: str) -> AsyncIterator[bytes]:
        """Read a blob piece by piece.

        Raises:
            FileNotFoundError: If there is none.
        """
        blob = await obstore.get_async(self._store, name)
        async for piece in blob.stream(min_chunk_size=2**20):
            yield bytes(piece)


class _Feed:
    """Pieces for a writer that cleans up after a feed that raises, but not after one that is merely dropped."""

    def __init__(self, pieces: AsyncIterable[bytes]) -> None:
        self._pieces = aiter(pieces)
        self._waiting: asyncio.Task[Any] | None = None
        self._cut = False

    def cut(self) -> None:
        """Make the feed raise instead of giving another piece."""
        self._cut = True
        if self._waiting is not None:
            self._waiting.cancel()

    def __aiter__(self) -> _Feed:
        return self

    async def __anext__(self) -> bytes:
        if self._cut:
            raise ConnectionAbortedError
        self._waiting = asyncio.current_task()
        try:
            return await anext(self._pieces)
        except asyncio.CancelledError:
            raise ConnectionAbortedError from None
        finally:
            self._waiting = None


def incoming_name(identifier: str) -> str:
    """Name of an upload whose digest is not known before its end."""
    return f"{INCOMING}/{identifier}"


def upload_name(digest: str) -> str:
    """Name of an uploaded safetensors file."""
    return f"tensors/{digest[:2]}/{digest}"


def result_name(key: str) -> str:
    """Name of a shard's packed mask."""
    return f"masks/{key[:2]}/{key}"


def result_report_name(key: str) -> str:
    """Name of the report beside a shard's packed mask; written last, so its presence proves the mask's."""
    return f"masks/{key[:2]}/{key}.json"


def weights_name(key: str) -> str:
    """Name of a shard's updated weights."""
    return f"weights/{key[:2]}/{key}"


def statistic_name(key: str) -> str:
    """Name of what was worked out once for all shards of a tensor."""
    return f"{STATISTICS}/{key[:2]}/{key}"
