"""Uploads: a safetensors body is inspected, hashed and stored while it arrives, a chunk at a time."""

from __future__ import annotations

import asyncio
import math
import uuid
from collections.abc import AsyncIterator

import anyio.to_thread
from blake3 import blake3
from fastapi import Request
from starlette.requests import ClientDisconnect

from masksmith_service.auth.principal import Caller
from masksmith_service.errors import RequestError
from masksmith_service.resources import State
from masksmith_service.settings import Settings
from masksmith_state.blobs.references import LinkOutcome
from masksmith_state.blobs.store import BlobStore, incoming_name, upload_name
from masksmith_wire.errors import Code
from masksmith_wire.headers import (
    PREFIX_BYTES,
    Header,
    HeaderError,
    HeaderTooLargeError,
    UnknownDtypeError,
    header_length,
    parse_header,
)

SMALL_HEADER_BYTES = 2**17
"""Headers up to this size are parsed at once; larger ones on a thread, lest other requests wait."""
BLOCK_BYTES = 2**20
"""How much is hashed and written at once: the store asks for every piece anew, and pieces off a socket are small."""
PROGRESS_BYTES = 2**16
"""A body that does not grow by this much in time has stalled."""
DISK_CHECK_BYTES = 2**26
"""How much of a body arrives between two looks at the disk."""


class Inspector:
    """Passes an upload's chunks on while it parses the header, counts and hashes.

    Args:
        request: The upload.
        settings: Limits.
        digest: What the bytes must hash to, where the client has said so.
        store: Where they are to be written; None where they are not.
    """

    def __init__(self, request: Request, settings: Settings, digest: str | None, store: BlobStore | None) -> None:
        self._request, self._settings, self._expected, self._store = request, settings, digest, store
        self._head = bytearray()
        self._hasher = blake3()
        self.header: Header | None = None
        self.error: RequestError | None = None
        self.bytes = 0
        self._patience_s, self._enough = settings.upload_stall_s, PROGRESS_BYTES

    @property
    def digest(self) -> str:
        """BLAKE3 of what has passed so far."""
        return self._hasher.hexdigest()

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield the body; raises at the first fault, which `error` keeps."""
        try:
            length = content_length(self._request)
            self._check_length(length)
            self._check_disk(length)
            async for chunk in self._arriving():
                await self._inspect(chunk)
                yield chunk
            await self._finish()
        except RequestError as error:
            self.error = error
            raise
        except ClientDisconnect:
            self.error = RequestError(Code.BODY_INCOMPLETE, f"the upload was cut off after {self.bytes} bytes")
            raise self.error from None

    async def _arriving(self) -> AsyncIterator[bytes]:
        """Yield the body for as long as it goes on: piece by piece up to the header's end, then in blocks."""
        pieces = aiter(self._request.stream())
        while block := await self._block(pieces):
            yield block

    async def _block(self, pieces: AsyncIterator[bytes]) -> bytes:
        """Join what comes next; empty at the end. Only the time spent waiting for it counts."""
        parts, size, clock = list[bytes](), 0, asyncio.get_running_loop().time
        until = clock() + self._patience_s
        try:
            async with asyncio.timeout_at(until) as limit:
                async for piece in pieces:
                    parts.append(piece)
                    size += len(piece)
                    if self.bytes + size >= self._enough:
                        until, self._enough = (
                            clock() + self._settings.upload_stall_s,
                            self.bytes + size + PROGRESS_BYTES,
                        )
                        limit.reschedule(until)
                    if size >= (1 if self.header is None else BLOCK_BYTES):
                        break
        except TimeoutError:
            stall_s, count = self._settings.upload_stall_s, self.bytes + size
            detail = f"no {PROGRESS_BYTES} bytes within upload_stall_s = {stall_s:g}, after {count} bytes"
            raise RequestError(Code.BODY_STALLED, detail + "; send it again", limit=stall_s) from None
        self._patience_s = until - clock()
        return b"".join(parts)

    async def _inspect(self, chunk: bytes) -> None:
        self.bytes += len(chunk)
        self._check_length(self.bytes)
        if self.bytes % DISK_CHECK_BYTES < len(chunk):
            self._check_disk(0)
        self._hasher.update(chunk)
        if self.header is None:
            self._head += chunk
            await self._read_header(complete=False)
        if self.header is not None and self.bytes > self.header.file_bytes:
            raise _invalid(
                HeaderError(
                    f"file is followed by bytes that belong to no tensor: the header promises {self.header.file_bytes}"
                )
            )

    async def _read_header(self, *, complete: bool) -> None:
        """Parse the header once all of it is here; the first eight bytes are judged at once."""
        try:
            if len(self._head) <= PREFIX_BYTES and not complete:
                return
            end = PREFIX_BYTES + self._header_length()
            if len(self._head) < end and not complete:
                return
            if len(self._head) < end:
                raise HeaderError(f"file is truncated: {self.bytes} bytes, the header alone takes {end}")
            text = bytes(self._head[PREFIX_BYTES:end])
            if len(text) <= SMALL_HEADER_BYTES:
                self.header = parse_header(text)
            else:
                self.header = await anyio.to_thread.run_sync(parse_header, text)
            self._head.clear()
        except HeaderError as error:
            raise _invalid(error) from None
        if len(self.header.tensors) > self._settings.max_tensors:
            detail = f"the file holds {len(self.header.tensors)} tensors, max_tensors is {self._settings.max_tensors}"
            raise RequestError(Code.TOO_MANY_TENSORS, detail, limit=self._settings.max_tensors)
        self._check_elements(self.header)

    def _header_length(self) -> int:
        prefix, first = bytes(self._head[:PREFIX_BYTES]), self._head[PREFIX_BYTES : PREFIX_BYTES + 1]
        try:
            return header_length(prefix, self._settings.max_header_bytes)
        except HeaderTooLargeError:
            # The first bytes of a zip or pickle can pass for a length, too.
            if first and first != b"{":
                raise HeaderError("not a safetensors file: the header does not begin with '{'") from None
            raise

    def _check_elements(self, header: Header) -> None:
        limit = self._settings.max_elements
        for name, entry in header.tensors.items():
            count = math.prod(entry.shape)
            if count > limit:
                detail = f"tensor {name[:200]!r} has {count} entries, max_elements is {limit}; split it"
                raise RequestError(Code.TOO_MANY_ELEMENTS, detail, tensor=name[:200], limit=limit)

    async def _finish(self) -> None:
        if self.header is None:
            await self._read_header(complete=True)
        assert self.header is not None
        if self.bytes < self.header.file_bytes:
            message = f"file is truncated: {self.bytes} bytes, the header promises {self.header.file_bytes}"
            raise _invalid(HeaderError(message))
        if self._expected is not None and self.digest != self._expected:
            detail = f"the body's BLAKE3 is {self.digest}, the address says {self._expected}; send it again"
            raise RequestError(Code.DIGEST_MISMATCH, detail)

    def _check_length(self, length: int) -> None:
        limit = self._settings.max_body_bytes
        if length > limit:
            detail = f"the body is larger than max_body_bytes = {limit}; split the file"
            raise RequestError(Code.BODY_TOO_LARGE, detail, limit=limit)

    def _check_disk(self, coming: int) -> None:
        floor = self._settings.min_free_bytes
        free = None if self._store is None or floor == 0 else self._store.free_bytes()
        if free is not None and free - coming < floor:
            detail = f"{free} bytes are free on the store's disk, of which min_free_bytes = {floor} stay free"
            raise RequestError(Code.DISK_FULL, detail + "; make room, or try again", retry_after_s=30, limit=floor)


async def receive(request: Request, state: State, caller: Caller, digest: str | None) -> tuple[Inspector, bool]:
    """Store an upload under its digest, for the key that sends it.

    Every byte is read and checked also where the upload is here already, for who cannot send it may not use it.

    Returns:
        The inspector with header and digest, and whether the upload was new to the key.

    Raises:
        RequestError: If the body is no sound safetensors file, too large, too slow, cut off, not what the digest says,
            or more than the key may keep.
    """
    if 0 < content_length(request) <= BLOCK_BYTES:
        return await _receive_small(request, state, caller, digest)
    await anyio.to_thread.run_sync(_check_quota, state, caller, digest, content_length(request))
    inspector = await _store(request, state, digest)
    new = await anyio.to_thread.run_sync(_link, state, caller, inspector)
    return inspector, new


async def _receive_small(request: Request, state: State, caller: Caller, digest: str | None) -> tuple[Inspector, bool]:
    """Store an upload that is one block: checked first, then written by one thread in one go."""
    inspector = Inspector(request, state.settings, digest, state.store)
    data = b"".join([block async for block in inspector.chunks()])

    def keep() -> bool:
        _check_quota(state, caller, inspector.digest, len(data))
        name = upload_name(inspector.digest)
        if state.store.size(name) != len(data):
            state.store.put(name, data)
        return _link(state, caller, inspector)

    return inspector, await anyio.to_thread.run_sync(keep, limiter=state.creating)


def content_length(request: Request) -> int:
    """Give the length that a request states; 0 where it states none."""
    return int(request.headers.get("content-length") or 0)


async def _store(request: Request, state: State, digest: str | None) -> Inspector:
    store, length = state.store, content_length(request)
    here = None if digest is None else await anyio.to_thread.run_sync(store.size, upload_name(digest))
    if here is not None and length in (0, here):
        inspector = Inspector(request, state.settings, digest, None)
        async for _ in inspector.chunks():
            pass
        return inspector
    inspector = Inspector(request, state.settings, digest, store)
    name = upload_name(digest) if digest is not None else incoming_name(uuid.uuid4().hex)
    try:
        await store.put_stream(name, inspector.chunks())
    except Exception:
        if inspector.error is not None:
            raise inspector.error from None
        raise
    if digest is None:
        await anyio.to_thread.run_sync(_settle, store, name, upload_name(inspector.digest))
    return inspector


def _check_quota(state: State, caller: Caller, digest: str | None, length: int) -> None:
    """Refuse early what could not be kept."""
    most = caller.quotas.stored_bytes
    if most is None or (digest is not None and state.references.touch(caller.key, digest, any_owner=False) is not None):
        return
    if state.references.bytes_of(caller.key) + length > most:
        raise too_many_bytes(caller)


def _link(state: State, caller: Caller, inspector: Inspector) -> bool:
    linked = state.references.link(caller.key, inspector.digest, inspector.bytes, caller.quotas.stored_bytes)
    if linked is LinkOutcome.FULL:
        raise too_many_bytes(caller)
    if linked is LinkOutcome.LOST:
        detail = "the upload had expired and was being deleted when it came; send it again"
        raise RequestError(Code.STORE_UNAVAILABLE, detail, retry_after_s=1)
    return linked is LinkOutcome.NEW


def too_many_bytes(caller: Caller) -> RequestError:
    """Say that a key may keep no more."""
    most = caller.quotas.stored_bytes
    detail = f"key {caller.name!r} may keep {most} bytes (stored_bytes); delete jobs, or wait until uploads expire"
    return RequestError(Code.TOO_MANY_BYTES, detail, retry_after_s=3600, limit=most)


def _settle(store: BlobStore, name: str, final: str) -> None:
    """Give an upload the name of its digest."""
    try:
        store.rename(name, final)
    except BaseException:
        store.delete(name)
        raise


def _invalid(error: HeaderError) -> RequestError:
    if isinstance(error, HeaderTooLargeError):
        return RequestError(Code.HEADER_TOO_LARGE, f"{error}; name fewer tensors in a file")
    code = Code.UNKNOWN_DTYPE if isinstance(error, UnknownDtypeError) else Code.INVALID_SAFETENSORS
    return RequestError(code, str(error))
