"""A root that is a prefix of an S3-compatible bucket."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from typing import Any

import obstore
from obstore.exceptions import (
    AlreadyExistsError,
    BaseError as StoreError,
    GenericError,
    NotModifiedError,
    PreconditionError,
)
from obstore.store import from_url

from masksmith_state.blobs.objects import BUCKET_RETRIES, BUCKET_RETRY_TIMEOUT_S, CHUNK_BYTES, CONCURRENT_CHUNKS
from masksmith_state.errors import ChangedSourceError, RootUnavailableError
from masksmith_state.panics import panics_as

from .location import is_inside
from .root import FileState, Root

MAX_OBJECT_BYTES = 10_000 * CHUNK_BYTES
"""Size of the largest object that can be written: S3 takes 10,000 parts of an upload, and each part is one chunk."""


@dataclass(frozen=True)
class BucketRoot(Root):
    """Objects below a prefix; credentials and endpoint come from the environment."""

    def stat(self, path: str) -> FileState:
        """See `Root.stat`."""
        self._check_not_in_inner_root(path)
        with self._converting_errors(path):
            return _state(obstore.head(self._store, path))

    def read(self, path: str, start: int, stop: int, version: str) -> bytes:
        """See `Root.read`."""
        # Only an ETag ends in a quotation mark, and only an ETag can be a condition of the request. In a store without
        # ETags (see `_state`), the version is only compared with that in the response.
        self._check_not_in_inner_root(path)
        options: Any = {"range": (start, stop)} | ({"if_match": version} if version.endswith('"') else {})
        try:
            with self._converting_errors(path):
                if start < stop:
                    result = obstore.get(self._store, path, options=options)
                    meta, data = result.meta, bytes(result.bytes())
                else:  # A request cannot have an empty range.
                    meta, data = obstore.head(self._store, path), b""
                is_same = _state(meta).version == version
        except FileNotFoundError:
            raise self.missing_file_error(path) from None
        except (PreconditionError, NotModifiedError):
            is_same, data = False, b""
        if not is_same or len(data) < stop - start:
            raise ChangedSourceError(self.location(path), "its version or its size is not the same")
        return data

    def list(self, path: str) -> dict[str, int]:
        """See `Root.list`."""
        sizes: dict[str, int] = {}
        prefix = f"{path}/" if path else ""
        self._check_not_in_inner_root(path)
        with self._converting_errors(path):
            for page in obstore.list(self._store, prefix, chunk_size=1000):
                for entry in page:
                    if not self._is_in_inner_root(str(entry["path"])):
                        sizes[str(entry["path"]).removeprefix(prefix)] = int(entry["size"])
                self.check_file_count(path, len(sizes))
        return dict(sorted(sizes.items()))

    def write(self, path: str, pieces: Iterable[bytes | memoryview]) -> None:
        """See `Root.write`; the object appears when the writer is closed, and not at all if `pieces` raises."""
        self._check_not_in_inner_root(path)
        with self._converting_errors(path):
            # `obstore.put` iterates in a context in which `pieces` could not call obstore itself.
            writer = obstore.open_writer(self._store, path, buffer_size=CHUNK_BYTES, max_concurrency=CONCURRENT_CHUNKS)
            for piece in pieces:
                writer.write(piece)
            writer.close()

    def create(self, path: str, data: bytes) -> bool:
        """See `Root.create`."""
        self._check_not_in_inner_root(path)
        with suppress(AlreadyExistsError), self._converting_errors(path):
            obstore.put(self._store, path, data, mode="create", use_multipart=False)
            return True
        return False

    def check_writable(self, path: str) -> None:
        """See `Root.check_writable`; a bucket has no directories."""
        self._check_not_in_inner_root(path)

    def delete(self, path: str) -> None:
        """See `Root.delete`."""
        self._check_not_in_inner_root(path)
        with self._converting_errors(path), suppress(FileNotFoundError):
            obstore.delete(self._store, path)

    @cached_property
    def _inner_roots(self) -> tuple[str, ...]:
        """Locations of the other roots that are inside this one."""
        return tuple(url for url in self.others if is_inside(url, self.url))

    def _is_in_inner_root(self, path: str) -> bool:
        return any(is_inside(self.location(path), url) for url in self._inner_roots)

    def _check_not_in_inner_root(self, path: str) -> None:
        if self._is_in_inner_root(path):
            raise self.inner_root_error(path)

    @cached_property
    def _store(self) -> Any:
        timeout = timedelta(seconds=BUCKET_RETRY_TIMEOUT_S)
        return from_url(self.url, retry_config={"max_retries": BUCKET_RETRIES, "retry_timeout": timeout})

    @contextmanager
    def _converting_errors(self, path: str) -> Iterator[None]:
        """Convert errors of the store; the new ones name the location.

        If the object does not exist, the new error is a `FileNotFoundError`; in other cases, such as a missing bucket,
        a `RootUnavailableError`. Errors that report an existing object, or one of another version, are not converted.
        """
        try:
            with panics_as(GenericError):
                yield
        except FileNotFoundError:
            self._check_bucket()
            raise FileNotFoundError(self.location(path)) from None
        except (AlreadyExistsError, PreconditionError, NotModifiedError, RootUnavailableError):
            raise  # `RootUnavailableError`, which the pieces of `write` may raise, is a subclass of `StoreError`.
        except StoreError as error:
            raise RootUnavailableError(self.location(path), _reason(error)) from None

    def _check_bucket(self) -> None:
        """Raise `RootUnavailableError` if the bucket does not exist, does not answer, or refuses to be listed."""
        try:
            with panics_as(GenericError):
                next(iter(obstore.list(self._store, chunk_size=1)), None)
        except (StoreError, FileNotFoundError) as error:
            raise RootUnavailableError(self.url, _reason(error)) from None


def _state(meta: Mapping[str, Any]) -> FileState:
    # S3 has strong ETags only. A reverse proxy that may compress responses marks those of some responses as weak, and
    # a condition with a weak one is never fulfilled (RFC 9110, 13.1.1).
    size, tag = int(meta["size"]), str(meta.get("e_tag") or "").removeprefix("W/")
    return FileState(size, tag or f"{size}-{meta['last_modified'].timestamp()}")


def _reason(error: Exception) -> str:
    """Return up to 300 characters of an error's first line, without the URL of the request before ` - `."""
    text = str(error).partition("\n")[0]
    return text.rpartition(" - ")[2][:300] if " - " in text else text[:300]
