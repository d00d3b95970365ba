"""A connection: HTTP as uvicorn speaks it, within limits, in the process where each request belongs."""

from __future__ import annotations

import asyncio
from asyncio.events import TimerHandle
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from masksmith_service.errors import RequestError
from masksmith_service.uploads.receive import BLOCK_BYTES
from masksmith_wire.errors import PROBLEM_MEDIA_TYPE, Code

from .peer import Peer

LARGE_BYTES = BLOCK_BYTES
"""Bodies above this size are carried by the bulk process; smaller ones are taken in one go."""

Headers = Sequence[tuple[bytes, bytes]]
Belongs = Callable[[Headers], bool]
"""Whether a process wants a request, by its headers."""


def is_bulk(headers: Headers) -> bool:
    """Whether a request's body is large, or of unknown size."""
    for name, value in headers:
        if name == b"transfer-encoding" or (name == b"content-length" and _number(value) > LARGE_BYTES):
            return True
    return False


def is_short(headers: Headers) -> bool:
    """Whether a request is soon done with."""
    return not is_bulk(headers)


def _number(value: bytes) -> int:
    return int(value) if value.isdigit() and len(value) < 20 else 0


@dataclass(frozen=True)
class Terms:
    """On what terms a process serves.

    Attributes:
        belongs: Which requests it wants; connections with others move to the peer.
        head_bytes: Most bytes of a request's line and headers.
        head_s: Seconds within which they must be here.
    """

    belongs: Belongs
    head_bytes: int
    head_s: float


class Connection(HttpToolsProtocol):
    """Serves requests, and moves to the other process, unread bytes and all, before one that belongs there.

    Args:
        first: What the other process read before the connection moved here.
    """

    def __init__(self, *args: Any, terms: Terms, peer: Peer, first: bytes = b"", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._terms, self._peer, self._first = terms, peer, first
        self._kept = bytearray()
        self._in_head, self._is_whole, self._moved = True, False, False
        self._patience: TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin."""
        super().connection_made(transport)
        self._arm()

    def begin(self) -> None:
        """Parse what the other process read, unless that was done with what has come since.

        Not as soon as the connection is made: the transport begins to read after that, whoever has paused it.
        """
        if self._first and not self.transport.is_closing():
            self.data_received(b"")

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        self._disarm()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what came; a head is kept until it is known who answers it."""
        data, self._first = self._first + data, b""
        if self._in_head:
            self._kept += data
        super().data_received(data)
        if self._moved:
            # Ends this process's hold on the connection, not the connection.
            self.transport.abort()
        elif self._kept and not self.transport.is_closing():
            self._check_head()

    def on_message_begin(self) -> None:
        """Note whether all of the request that begins is kept: one that follows another in a piece is not."""
        self._is_whole = bool(self._kept)
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Serve the request here, or move."""
        self._in_head = False
        self._disarm()
        if not self._moves():
            super().on_headers_complete()
        self._kept.clear()

    def on_body(self, body: bytes) -> None:
        """Take a piece of the body."""
        if not self._moved:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """Be ready for the next request."""
        if not self._moved:
            super().on_message_complete()
            self._in_head = True

    def send_400_response(self, msg: str) -> None:
        """Refuse what is not HTTP."""
        self._refuse(400, Code.MALFORMED_REQUEST, msg)

    def _moves(self) -> bool:
        if not (self._is_whole and self._peer.is_ready and self._is_free()) or self.transport.get_write_buffer_size():
            return False
        if self._terms.belongs(self.headers):
            return False
        self.transport.pause_reading()
        self._moved = self._peer.give(self.transport.get_extra_info("socket").fileno(), self._kept)
        if not self._moved:
            self.transport.resume_reading()
        return self._moved

    def _is_free(self) -> bool:
        """Whether no answer is under way."""
        return self.cycle is None or self.cycle.response_complete

    def _check_head(self) -> None:
        limit = self._terms.head_bytes
        if len(self._kept) > limit:
            detail = f"the request's line and headers are larger than max_request_head_bytes = {limit}"
            self._refuse(431, Code.REQUEST_HEAD_TOO_LARGE, detail, limit=limit)
        elif self._patience is None:
            self._arm()

    def _arm(self) -> None:
        self._patience = self.loop.call_later(self._terms.head_s, self._late)

    def _disarm(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def _late(self) -> None:
        limit = self._terms.head_s
        if self._kept:
            detail = f"the request's line and headers were not here within request_head_s = {limit:g}"
            self._refuse(408, Code.REQUEST_HEAD_STALLED, detail, limit=limit)
        else:
            self.transport.close()

    def _refuse(self, status: int, code: Code, detail: str, **extra: Any) -> None:
        """Answer what no application gets to see, and close; without an answer where another is under way."""
        if self._moved:
            return
        if self._is_free():
            body = (
                RequestError(code, detail, status=status, **extra).problem().model_dump_json(exclude_none=True).encode()
            )
            media = PROBLEM_MEDIA_TYPE.encode()
            head = [b"content-type: %b" % media, b"content-length: %d" % len(body), b"connection: close", b"", body]
            self.transport.write(STATUS_LINE[status] + b"\r\n".join(head))
        self.transport.close()
