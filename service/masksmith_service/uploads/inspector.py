"""Checks the body of an upload while it is received: header, length, digest, speed, and free disk space."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import anyio.to_thread
from fastapi import Request
from starlette.requests import ClientDisconnect

from masksmith.layouts.foreign_files import BEGINNING_BYTES
from masksmith_service.bounds.table import cost
from masksmith_service.errors import RequestError
from masksmith_service.settings import Settings
from masksmith_state.blobs.pieces import PieceHasher
from masksmith_state.blobs.store import BlobStore
from masksmith_wire.errors import Code
from masksmith_wire.headers import PREFIX_BYTES, Header, HeaderError, header_length, truncated_header

from .header_checks import header_error, parse_untrusted
from .quota import UploadQuota

SMALL_HEADER_BYTES = 2**17
"""Headers up to this size are parsed on the event loop, larger ones on a thread, so as not to delay other requests."""
BLOCK_BYTES = 2**20
"""Bytes that are gathered before they are hashed and written: a socket's pieces are small, and a write has a cost."""
PROGRESS_BYTES = 2**16
"""A body that grows by less than this within `upload_stall_s` has stalled."""
DISK_CHECK_BYTES = 2**26
"""Bytes of a body between two checks of the free disk space."""


class Inspector:
    """Yields an upload's body in blocks; parses the header, checks limits, and hashes meanwhile.

    Args:
        request: The upload.
        settings: Limits.
        digest: Expected digest of the body; None if any is accepted.
        store: Store whose free disk space is checked; None for an upload that is not written to it.
        quota: Counts the body toward the quota of the request's key; None if it is not counted.

    Attributes:
        hasher: Hashes the body as it is received.
        header: The header; None until all of it has been received and parsed.
        error: The error that ended `blocks`, or None.
        bytes: Number of bytes received so far.
    """

    def __init__(
        self,
        request: Request,
        settings: Settings,
        digest: str | None,
        store: BlobStore | None,
        quota: UploadQuota | None = None,
    ) -> None:
        self._request, self._settings, self._expected_digest, self._store = request, settings, digest, store
        self._quota = quota
        self._head, self._is_header_memory_reserved = bytearray(), False
        self.hasher = PieceHasher()
        self.header: Header | None = None
        self.error: RequestError | None = None
        self.bytes = 0
        # Seconds that the client has left for the next `PROGRESS_BYTES`, up to byte `_next_progress`; set again to
        # `upload_stall_s` whenever these bytes have arrived.
        self._remaining_s, self._next_progress = settings.upload_stall_s, PROGRESS_BYTES

    @property
    def digest(self) -> str:
        """BLAKE3 of the blocks received so far."""
        return self.hasher.digest

    async def blocks(self) -> AsyncIterator[bytes]:
        """Yield the body.

        Raises:
            RequestError: At the first error, which the attribute `error` keeps.
        """
        try:
            length = content_length(self._request)
            self._check_length(length)
            self._check_disk(length)
            async for block in self._received_blocks():
                await self._inspect(block)
                yield block
            await self._finish()
        except RequestError as error:
            self.error = error
            raise
        except ClientDisconnect:
            self.error = RequestError(Code.BODY_INCOMPLETE, f"the upload was cut off after {self.bytes} bytes")
            raise self.error from None

    async def _received_blocks(self) -> AsyncIterator[bytes]:
        """Yield the body in blocks: as it arrives up to the end of the header, then gathered to at least `BLOCK_BYTES`.

        The last block may be smaller.
        """
        pieces = aiter(self._request.stream())
        while block := await self._receive_block(pieces):
            yield block

    async def _receive_block(self, pieces: AsyncIterator[bytes]) -> bytes:
        """Receive the next block, empty at the end; only the time spent waiting for the client is limited."""
        min_bytes = 1 if self.header is None else BLOCK_BYTES
        pieces_of_block: list[bytes] = []
        size, clock = 0, asyncio.get_running_loop().time
        deadline = clock() + self._remaining_s
        try:
            async with asyncio.timeout_at(deadline) as timeout:
                async for piece in pieces:
                    pieces_of_block.append(piece)
                    size += len(piece)
                    if self.bytes + size >= self._next_progress:
                        self._next_progress = self.bytes + size + PROGRESS_BYTES
                        deadline = clock() + self._settings.upload_stall_s
                        timeout.reschedule(deadline)
                    if size >= min_bytes:
                        break
        except TimeoutError:
            stall_s, count = self._settings.upload_stall_s, self.bytes + size
            detail = f"fewer than {PROGRESS_BYTES} bytes arrived within upload_stall_s = {stall_s:g} (total: {count})"
            raise RequestError(Code.BODY_STALLED, detail + "; send it again", limit=stall_s) from None
        self._remaining_s = deadline - clock()
        return b"".join(pieces_of_block)

    async def _inspect(self, block: bytes) -> None:
        self.bytes += len(block)
        self._check_length(self.bytes)
        if self.bytes % DISK_CHECK_BYTES < len(block):  # This block reaches or crosses a multiple.
            self._check_disk(0)
        if self._quota is not None:
            self._quota.count_total(self.bytes)
        self.hasher.update(block)
        if self.header is None:
            self._head += block
            await self._read_header(at_end=False)
        if self.header is not None and self.bytes > self.header.file_bytes:
            reason = f"bytes that belong to no tensor: the header implies {self.header.file_bytes}"
            raise header_error(HeaderError(f"file is followed by {reason}"))

    async def _read_header(self, *, at_end: bool) -> None:
        """Parse the header once all of it has arrived; with `at_end`, it is an error if a part is missing.

        The header's length is checked as soon as nine bytes have arrived: the ninth improves the error messages.
        """
        try:
            if len(self._head) <= PREFIX_BYTES and not at_end:
                return
            length = header_length(bytes(self._head[:BEGINNING_BYTES]), self._settings.max_header_bytes)
            await self._reserve_header_memory(length)
            end = PREFIX_BYTES + length
            if len(self._head) < end and not at_end:
                return
            if len(self._head) < end:
                raise truncated_header(self.bytes, end)
            text = bytes(self._head[PREFIX_BYTES:end])
            if length <= SMALL_HEADER_BYTES:
                self.header = parse_untrusted(text, self._settings)
            else:
                self.header = await anyio.to_thread.run_sync(parse_untrusted, text, self._settings)
            self._head.clear()
        except HeaderError as error:
            raise header_error(error) from None

    async def _reserve_header_memory(self, length: int) -> None:
        """Reserve, once, the memory that a large header takes, until the request is answered."""
        if length > SMALL_HEADER_BYTES and not self._is_header_memory_reserved:
            self._is_header_memory_reserved = True
            memory = self._request.app.state.masksmith.capacities.memory
            await self._request.state.reservation.add(memory, cost("header") * length)

    async def _finish(self) -> None:
        if self.header is None:
            await self._read_header(at_end=True)
        assert self.header is not None
        if self.bytes < self.header.file_bytes:
            message = f"file is truncated: {self.bytes} bytes, the header implies {self.header.file_bytes}"
            raise header_error(HeaderError(message))
        if self._expected_digest is not None and self.digest != self._expected_digest:
            detail = f"the body's BLAKE3 is {self.digest}, the address says {self._expected_digest}; send it again"
            raise RequestError(Code.DIGEST_MISMATCH, detail)

    def _check_length(self, length: int) -> None:
        limit = self._settings.max_body_bytes
        if length > limit:
            detail = f"the body is larger than max_body_bytes = {limit}; split the file"
            raise RequestError(Code.BODY_TOO_LARGE, detail, limit=limit)

    def _check_disk(self, expected_bytes: int) -> None:
        if self._store is not None:
            check_disk(self._store, self._settings, expected_bytes)


def check_disk(store: BlobStore, settings: Settings, expected_bytes: int) -> None:
    """Check that `min_free_bytes` stay free on a store's disk after a number of bytes has been written.

    Raises:
        RequestError: If less would stay free.
    """
    floor = settings.min_free_bytes
    free = None if floor == 0 else store.free_bytes()
    if free is not None and free - expected_bytes < floor:
        detail = f"{free} bytes are free on the store's disk; min_free_bytes = {floor} must stay free"
        raise RequestError(Code.DISK_FULL, detail + "; make room, or try again", retry_after_s=30, limit=floor)


def content_length(request: Request) -> int:
    """Content-Length of a request; 0 without the header."""
    return int(request.headers.get("content-length") or 0)
