"""Receives safetensors files: inspects, hashes and stores the body in chunks."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator

import anyio.to_thread
from fastapi import Request
from starlette.requests import ClientDisconnect

from masksmith_service.auth.principal import Principal
from masksmith_service.bounds.table import cost
from masksmith_service.errors import RequestError
from masksmith_service.resources import State
from masksmith_service.settings import Settings
from masksmith_state.blobs.names import incoming_name, upload_name
from masksmith_state.blobs.pieces import PieceHasher
from masksmith_state.blobs.references import LinkOutcome
from masksmith_state.blobs.store import BlobStore
from masksmith_state.errors import DamagedBlobError
from masksmith_wire.errors import Code
from masksmith_wire.headers import (
    PREFIX_BYTES,
    Header,
    HeaderError,
    HeaderTooLargeError,
    UnknownDtypeError,
    check_members,
    header_length,
    parse_header,
)

from .header_checks import check_header

SMALL_HEADER_BYTES = 2**17
"""Headers up to this size are parsed on the event loop, larger ones on a thread, so as not to delay other requests."""
BLOCK_BYTES = 2**20
"""Bytes that are hashed and written at once; pieces from a socket are small, and each write to the store has a cost."""
PROGRESS_BYTES = 2**16
"""A body that grows by less than this within `upload_stall_s` has stalled."""
UPLOAD_RECORD_BYTES = 1024
"""Bytes of the broker for the record of an upload."""
DISK_CHECK_BYTES = 2**26
"""Bytes of a body between two checks of the free disk space."""


class Quota:
    """A key's quota of stored bytes while it sends an upload: begun uploads count, too.

    Args:
        state: Resources of the application.
        principal: The sender.
        digest: Expected digest of the upload, or None.
    """

    def __init__(self, state: State, principal: Principal, digest: str | None) -> None:
        self._state, self._principal, self._digest = state, principal, digest
        self._begun = state.capacities.begun
        self._counted = 0
        self._room: float = float("inf")

    def check(self, length: int) -> None:
        """Reject an upload that would exceed the quota before it is received, or for which the broker has no room.

        Raises:
            RequestError: 429, for the quota.
            BrokerFullError: If the broker has no room for another record.
        """
        state, key, limit = self._state, self._principal.key, self._principal.quotas.stored_bytes
        if (
            self._digest is not None
            and uploaded_bytes(state, self._principal, self._digest, any_owner=False) is not None
        ):
            return
        state.housekeeping.broker.require_room(UPLOAD_RECORD_BYTES)
        if limit is not None:
            self._room = limit - state.references.bytes_of(key)
        if self._begun[key] + length > self._room:
            raise too_many_bytes(self._principal)

    def grow(self, size: int) -> None:
        """Count what has arrived, or is to arrive.

        Raises:
            RequestError: If all begun uploads of the key are too large together.
        """
        if size > self._counted:
            self._begun[self._principal.key] += size - self._counted
            self._counted = size
        if self._begun[self._principal.key] > self._room:
            raise too_many_bytes(self._principal)

    def end(self) -> None:
        """Count the upload no longer: it is stored, or was refused."""
        self._begun[self._principal.key] -= self._counted
        self._counted = 0


class Inspector:
    """Yields an upload's chunks, while it parses the header, checks limits and hashes.

    Args:
        request: The upload.
        settings: Limits.
        digest: Expected digest of the body, or None.
        store: Store that the body is written to; None if it is not written.
        quota: Counts the body as it is received.
    """

    def __init__(
        self,
        request: Request,
        settings: Settings,
        digest: str | None,
        store: BlobStore | None,
        quota: Quota | None = None,
    ) -> None:
        self._request, self._settings, self._expected, self._store = request, settings, digest, store
        self._quota = quota
        self._head, self._is_header_counted = bytearray(), False
        self.hasher = PieceHasher()
        self.header: Header | None = None
        self.error: RequestError | None = None
        self.bytes = 0
        self._remaining_s, self._next_progress = settings.upload_stall_s, PROGRESS_BYTES

    @property
    def digest(self) -> str:
        """BLAKE3 of the chunks yielded so far."""
        return self.hasher.digest

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield the body; the first error is stored in `error` and raised."""
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
        """Yield the body: piece by piece up to the header's end, then in blocks."""
        pieces = aiter(self._request.stream())
        while block := await self._block(pieces):
            yield block

    async def _block(self, pieces: AsyncIterator[bytes]) -> bytes:
        """Receive the next block, empty at the end; only the time spent waiting for the client is limited."""
        parts, size, clock = list[bytes](), 0, asyncio.get_running_loop().time
        until = clock() + self._remaining_s
        try:
            async with asyncio.timeout_at(until) as limit:
                async for piece in pieces:
                    parts.append(piece)
                    size += len(piece)
                    if self.bytes + size >= self._next_progress:
                        until, self._next_progress = (
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
        self._remaining_s = until - clock()
        return b"".join(parts)

    async def _inspect(self, chunk: bytes) -> None:
        self.bytes += len(chunk)
        self._check_length(self.bytes)
        if self.bytes % DISK_CHECK_BYTES < len(chunk):  # This chunk crosses a multiple of it.
            self._check_disk(0)
        if self._quota is not None:
            self._quota.grow(self.bytes)
        self.hasher.update(chunk)
        if self.header is None:
            self._head += chunk
            await self._read_header(complete=False)
        if self.header is not None and self.bytes > self.header.file_bytes:
            raise _invalid(
                HeaderError(
                    f"file is followed by bytes that belong to no tensor: the header implies {self.header.file_bytes}"
                )
            )

    async def _read_header(self, *, complete: bool) -> None:
        """Parse the header when it is complete; its length is checked as soon as nine bytes have arrived."""
        try:
            if len(self._head) <= PREFIX_BYTES and not complete:
                return
            length = self._header_length()
            await self._count_header(length)
            end = PREFIX_BYTES + length
            if len(self._head) < end and not complete:
                return
            if len(self._head) < end:
                raise HeaderError(f"file is truncated: {self.bytes} bytes, the header alone takes {end}")
            text = bytes(self._head[PREFIX_BYTES:end])
            if len(text) <= SMALL_HEADER_BYTES:
                self.header = _parse(text, self._settings.max_tensors)
            else:
                self.header = await anyio.to_thread.run_sync(_parse, text, self._settings.max_tensors)
            self._head.clear()
        except HeaderError as error:
            raise _invalid(error) from None
        check_header(self.header, self._settings)

    async def _count_header(self, length: int) -> None:
        """Hold the memory that a large header takes, until the request is answered."""
        if length > SMALL_HEADER_BYTES and not self._is_header_counted:
            self._is_header_counted = True
            memory = self._request.app.state.masksmith.capacities.memory
            await self._request.state.held.add(memory, cost("header") * length)

    def _header_length(self) -> int:
        prefix, first = bytes(self._head[:PREFIX_BYTES]), self._head[PREFIX_BYTES : PREFIX_BYTES + 1]
        try:
            return header_length(prefix, self._settings.max_header_bytes)
        except HeaderTooLargeError:
            # The first bytes of a zip or pickle file can be a valid length.
            if first and first != b"{":
                raise HeaderError("not a safetensors file: the header does not begin with '{'") from None
            raise

    async def _finish(self) -> None:
        if self.header is None:
            await self._read_header(complete=True)
        assert self.header is not None
        if self.bytes < self.header.file_bytes:
            message = f"file is truncated: {self.bytes} bytes, the header implies {self.header.file_bytes}"
            raise _invalid(HeaderError(message))
        if self._expected is not None and self.digest != self._expected:
            detail = f"the body's BLAKE3 is {self.digest}, the address says {self._expected}; send it again"
            raise RequestError(Code.DIGEST_MISMATCH, detail)

    def _check_length(self, length: int) -> None:
        limit = self._settings.max_body_bytes
        if length > limit:
            detail = f"the body is larger than max_body_bytes = {limit}; split the file"
            raise RequestError(Code.BODY_TOO_LARGE, detail, limit=limit)

    def _check_disk(self, expected_bytes: int) -> None:
        floor = self._settings.min_free_bytes
        free = None if self._store is None or floor == 0 else self._store.free_bytes()
        if free is not None and free - expected_bytes < floor:
            detail = f"{free} bytes are free on the store's disk, of which min_free_bytes = {floor} stay free"
            raise RequestError(Code.DISK_FULL, detail + "; make room, or try again", retry_after_s=30, limit=floor)


async def receive(request: Request, state: State, principal: Principal, digest: str | None) -> tuple[Inspector, bool]:
    """Store an upload under its digest, and add a reference of the principal's key.

    The whole body is read and checked even if the upload exists already: only a client that can send its bytes gets
    access to it.

    Returns:
        The inspector with header and digest, and whether the upload is new to the key.

    Raises:
        RequestError: If the body is not a valid safetensors file, is too large, too slow or incomplete, does not match
            the digest, or exceeds the key's quota.
    """
    if not state.housekeeping.is_claimed:
        await anyio.to_thread.run_sync(state.housekeeping.ensure_claimed)
    if 0 < content_length(request) <= BLOCK_BYTES:
        return await _receive_small(request, state, principal, digest)
    quota = Quota(state, principal, digest)
    length = content_length(request)
    await anyio.to_thread.run_sync(quota.check, length)
    try:
        quota.grow(length)
        inspector = await _store_stream(request, state, digest, quota)
        new = await anyio.to_thread.run_sync(_add_reference, state, principal, inspector)
    finally:
        quota.end()
    return inspector, new


async def _receive_small(
    request: Request, state: State, principal: Principal, digest: str | None
) -> tuple[Inspector, bool]:
    """Store an upload of at most one block: check it first, then write it in one step on a thread."""
    inspector = Inspector(request, state.settings, digest, state.store)
    data = b"".join([block async for block in inspector.chunks()])

    def store() -> bool:
        Quota(state, principal, inspector.digest).check(len(data))
        name = upload_name(inspector.digest)
        if not state.store.is_intact(name):
            state.store.put(name, data)
        return _add_reference(state, principal, inspector)

    return inspector, await anyio.to_thread.run_sync(store, limiter=state.creating)


def uploaded_bytes(state: State, principal: Principal, digest: str, *, any_owner: bool) -> int | None:
    """Record the use of an upload, and return its size; None if it must be sent (again)."""
    try:
        return state.references.touch(principal.key, digest, any_owner=any_owner)
    except (DamagedBlobError, FileNotFoundError):
        return None


def content_length(request: Request) -> int:
    """Content-Length of a request; 0 without the header."""
    return int(request.headers.get("content-length") or 0)


async def _store_stream(request: Request, state: State, digest: str | None, quota: Quota) -> Inspector:
    store = state.store
    if digest is not None and await anyio.to_thread.run_sync(store.is_intact, upload_name(digest)):
        inspector = Inspector(request, state.settings, digest, None)
        async for _ in inspector.chunks():
            pass
        return inspector
    inspector = Inspector(request, state.settings, digest, store, quota)
    name = upload_name(digest) if digest is not None else incoming_name(uuid.uuid4().hex)
    try:
        await store.put_stream(name, inspector.chunks(), inspector.hasher)
    except Exception:
        if inspector.error is not None:
            raise inspector.error from None
        raise
    if digest is None:
        await anyio.to_thread.run_sync(_rename_to_digest, store, name, upload_name(inspector.digest))
    return inspector


def _add_reference(state: State, principal: Principal, inspector: Inspector) -> bool:
    limits = (principal.quotas.stored_bytes, state.settings.key_broker_bytes if principal.key else None)
    outcome = state.references.link(principal.key, inspector.digest, inspector.bytes, *limits)
    if outcome is LinkOutcome.FULL:
        raise too_many_bytes(principal)
    if outcome is LinkOutcome.LOST:
        detail = "the upload had expired and was being deleted when it came; send it again"
        raise RequestError(Code.STORE_UNAVAILABLE, detail, retry_after_s=1)
    return outcome is LinkOutcome.NEW


def too_many_bytes(principal: Principal) -> RequestError:
    """Error of a key whose quota of stored bytes is exceeded."""
    limit = principal.quotas.stored_bytes
    detail = f"key {principal.name!r} may keep {limit} bytes (stored_bytes); delete jobs, or wait until uploads expire"
    return RequestError(Code.TOO_MANY_BYTES, detail, retry_after_s=3600, limit=limit)


def _rename_to_digest(store: BlobStore, name: str, final: str) -> None:
    """Rename a received upload to its digest."""
    try:
        store.rename(name, final)
    except BaseException:
        store.delete(name)
        raise


def _parse(text: bytes, max_tensors: int) -> Header:
    check_members(text, max_tensors)
    return parse_header(text)


def _invalid(error: HeaderError) -> RequestError:
    if isinstance(error, HeaderTooLargeError):
        return RequestError(Code.HEADER_TOO_LARGE, f"{error}; name fewer tensors in a file")
    code = Code.UNKNOWN_DTYPE if isinstance(error, UnknownDtypeError) else Code.INVALID_SAFETENSORS
    return RequestError(code, str(error))
