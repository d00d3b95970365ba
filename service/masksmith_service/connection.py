"""HTTP connection of uvicorn with limits on request heads, trailers, chunk framing and pipelined requests."""

from __future__ import annotations

import asyncio
from asyncio.events import TimerHandle
from typing import Any

from starlette.datastructures import MutableHeaders
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from masksmith_wire.errors import PROBLEM_MEDIA_TYPE, Code

from .bounds.capacity import RETRY_AFTER_S
from .bounds.connections import Connections
from .bounds.request_meter import RequestMeter
from .bounds.stalled_readers import StalledReader
from .bounds.table import limit
from .errors import RequestError
from .middleware.security_headers import add_headers

MAX_PIPELINED, MAX_PIPELINED_FIELDS = limit("pipelined"), limit("pipelined_fields")
HEALTH = b"/healthz"
"""The only address that is served beyond the limit of connections."""
FLUSH_S = 2.0
"""Seconds within which a client can read the response to a rejected request."""


class Connection(HttpToolsProtocol):
    """Parses requests; answers one that exceeds a limit with a problem document, and closes the connection.

    Trailers are counted and dropped: uvicorn would append them to the headers, unchecked.

    Args:
        head_bytes: Limit in bytes of a request's line and headers, and of its trailers and chunk framing.
        head_s: Seconds within which line and headers must arrive.
        read_s: Seconds within which the client must read another part of a full buffer.
        open_connections: All connections of the process.
    """

    def __init__(
        self, *args: Any, head_bytes: int, head_s: float, read_s: float, open_connections: Connections, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self._meter, self._head_s = RequestMeter(head_bytes), head_s
        self._reader = StalledReader(read_s, self.abort)
        self._open, self._is_served = open_connections, True
        self._running: RequestResponseCycle | None = None
        self._timer: TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the timer of the first head."""
        super().connection_made(transport)
        self._is_served = self._open.add(self)
        self._start_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        """Notify the request that is being answered; uvicorn notifies the last one, which may be queued behind it."""
        self._open.discard(self)
        self._stop_timer()
        self._reader.stop()
        self._disconnect()
        super().connection_lost(exc)

    @property
    def is_idle(self) -> bool:
        """Whether no request is being answered."""
        return self._running is None or self._running.response_complete

    def abort(self) -> None:
        """Close the connection at once, with what was not sent."""
        self._disconnect()
        self.transport.abort()

    def pause_writing(self) -> None:
        """Wait until the client has read, for a limited time."""
        super().pause_writing()
        self._reader.start(self.transport)

    def resume_writing(self) -> None:
        """Go on sending."""
        self._reader.stop()
        super().resume_writing()

    def data_received(self, data: bytes) -> None:
        """Parse data, then check the size of what is neither a complete head nor a body."""
        self._meter.pending += len(data)
        super().data_received(data)
        if self.transport.is_closing():
            return
        if self._meter.pending > self._meter.limit:
            self._reject(self._meter.too_large())
        elif self._meter.pending and not self._meter.in_body and self._timer is None:
            self._start_timer()

    def on_url(self, url: bytes) -> None:
        """Count and pass on a piece of the request target."""
        self._meter.count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Count a field; pass it on unless it is a trailer."""
        self._meter.count(len(name) + len(value) + 4, fields=1)
        if not self._meter.in_body:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Start the request, or queue it behind an earlier one."""
        self._stop_timer()
        if not self._is_served and self.url != HEALTH:
            raise self._meter.refuse(_too_many_connections(self._open.limit))
        waiting = [len([*cycle.scope["headers"]]) for cycle, _ in self.pipeline]
        if len(waiting) >= MAX_PIPELINED or sum(waiting) + len(self.headers) > MAX_PIPELINED_FIELDS:
            raise OverflowError(f"more than {MAX_PIPELINED} requests, or {MAX_PIPELINED_FIELDS} fields, wait")
        super().on_headers_complete()
        self._meter.restart(in_body=True)

    def on_body(self, body: bytes) -> None:
        """Count and pass on a piece of the body."""
        self._meter.count_body(len(body))
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Reset the counters for the next request."""
        self._meter.restart(in_body=False)
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """Reject data that is not HTTP, or has too many fields."""
        self._reject(self._meter.error or RequestError(Code.MALFORMED_REQUEST, msg))

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def _start_timer(self) -> None:
        self._timer = self.loop.call_later(self._head_s, self._on_timer)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _on_timer(self) -> None:
        if self.flow.read_paused:
            # The rest of the head is not read while an earlier request is being answered.
            self._start_timer()
        elif self._meter.pending:
            detail = f"the request's line and headers did not arrive within request_head_s = {self._head_s:g}"
            self._reject(RequestError(Code.REQUEST_HEAD_STALLED, detail, limit=self._head_s))
        else:
            self.transport.close()

    def _reject(self, error: RequestError) -> None:
        """Respond with an error, unless the client would take it for another response; then close the connection."""
        if self._can_respond():
            self.transport.write(_encode_response(error))
        self._disconnect()
        self.transport.close()
        self.loop.call_later(FLUSH_S, self.transport.abort)

    def _can_respond(self) -> bool:
        running, in_body = self._running, self._meter.in_body
        if running is None or running.response_complete:
            return not in_body
        return in_body and running is self.cycle and not running.response_started

    def _disconnect(self) -> None:
        if self._running is not None and not self._running.response_complete:
            self._running.disconnected = True
            self._running.message_event.set()


def _too_many_connections(limit: int) -> RequestError:
    detail = f"max_connections = {limit} connections are open; try again shortly"
    return RequestError(Code.OVERLOADED, detail, retry_after_s=RETRY_AFTER_S, bound="max_connections")


def _encode_response(error: RequestError) -> bytes:
    body = error.problem().model_dump_json(exclude_none=True).encode()
    headers = MutableHeaders(
        {"content-type": PROBLEM_MEDIA_TYPE, "content-length": str(len(body)), "connection": "close"}
    )
    if error.retry_after_s is not None:
        headers["retry-after"] = str(error.retry_after_s)
    add_headers(headers)
    fields = [b"%b: %b" % field for field in headers.raw]
    return STATUS_LINE[error.status] + b"\r\n".join([*fields, b"", body])
