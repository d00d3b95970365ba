"""HTTP connection of uvicorn with limits on request heads, trailers, chunk framing, pipelining and upgrades."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from starlette.datastructures import MutableHeaders
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from masksmith_wire.errors import PROBLEM_MEDIA_TYPE, Code

from .bounds.capacity import RETRY_AFTER_S
from .bounds.connections import Connections
from .bounds.head_timer import HeadTimer
from .bounds.request_meter import RequestMeter
from .bounds.table import limit
from .bounds.write_stalls import WriteStallTimer
from .errors import RequestError
from .middleware.security_headers import add_headers

MAX_PIPELINED, MAX_PIPELINED_FIELDS = limit("pipelined"), limit("pipelined_fields")
HEALTH = b"/healthz"
"""The only path that is served beyond the limit of connections."""
_log = logging.getLogger("uvicorn.error.connection")
"""Logger of connections, for errors only. Uvicorn logs a warning for each request that is not HTTP or asks for another
protocol, so that anybody could fill the log. `Connection` does not log the requests that it rejects."""
_log.setLevel(logging.ERROR)
FLUSH_S = 2.0
"""Seconds between the response to a rejected request and the abort of its connection."""


class Connection(HttpToolsProtocol):
    """Parses requests; answers one that exceeds a limit with a problem document, and closes the connection.

    Trailers are counted and dropped, because uvicorn would append them to the headers without a check.

    Args:
        head_bytes: Limit in bytes of a request's line and headers together; the same limit applies to its trailers and
            chunk framing together.
        head_s: Seconds within which line and headers must arrive.
        read_s: Seconds within which the client must read more of the response, while the write buffer is full or still
            has a part of a finished response.
        open_connections: The open connections of the process, with their limit.
    """

    def __init__(
        self, *args: Any, head_bytes: int, head_s: float, read_s: float, open_connections: Connections, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.logger = _log
        self._meter = RequestMeter(head_bytes)
        self._head_timer, self._write_timer = HeadTimer(head_s, self._on_late_head), WriteStallTimer(read_s, self.abort)
        self._connections, self._serves_all_paths = open_connections, True
        self._running: RequestResponseCycle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Add the connection to the open ones, and start the timer of the first head."""
        super().connection_made(transport)
        self._serves_all_paths = self._connections.add(self)
        self._head_timer.start()

    def connection_lost(self, exc: Exception | None) -> None:
        """Remove the connection from the open ones, stop its timers, and notify the request that is being answered.

        Uvicorn notifies only the last request that it parsed, which may wait for the response to an earlier one.
        """
        self._connections.discard(self)
        self._head_timer.stop()
        self._write_timer.stop()
        _disconnect(self._running)
        super().connection_lost(exc)

    @property
    def is_idle(self) -> bool:
        """Whether no request is being answered, and all of the last response has been sent."""
        is_answering = self._running is not None and not self._running.response_complete
        return not is_answering and self.transport.get_write_buffer_size() == 0

    def abort(self) -> None:
        """Notify the request that is being answered, and close the connection at once, without sending its buffer."""
        _disconnect(self._running)
        self.transport.abort()

    def pause_writing(self) -> None:
        """Pause until the client has read enough; the time for this is limited."""
        super().pause_writing()
        self._write_timer.start(self.transport)

    def resume_writing(self) -> None:
        """Stop the timer, because the client has read enough; start it again if nothing more will be added."""
        self._write_timer.stop()
        if self._running is None or self._running.response_complete or self.transport.is_closing():
            self._write_timer.start(self.transport)
        super().resume_writing()

    def on_response_complete(self) -> None:
        """Limit the time in which the client must read the rest; start the next request that waits."""
        self._write_timer.start(self.transport)
        super().on_response_complete()

    def data_received(self, data: bytes) -> None:
        """Parse data; reject a head, trailers or chunk framing that are too large; start the timer of a new head."""
        self._meter.pending_bytes += len(data)
        super().data_received(data)
        if self.transport.is_closing():
            return
        if self._meter.pending_bytes > self._meter.limit_bytes:
            self._reject(self._meter.too_large_error())
        elif self._meter.pending_bytes and not self._meter.in_body and not self._head_timer.is_running:
            self._head_timer.start()

    def on_url(self, url: bytes) -> None:
        """Count and pass on a piece of the request target."""
        self._meter.count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Count a field; pass it on unless it is a trailer."""
        self._meter.count(len(name) + len(value) + 4, fields=1)  # 4 bytes: colon, space, CR, LF
        if not self._meter.in_body:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Start the request, or queue it behind an earlier one.

        It is refused if too many requests or fields wait on this connection; if the connection is beyond the limit and
        the request is not for `/healthz`; or if it asks for another protocol (`Upgrade`) and has a body, because the
        parser takes such a body for the next request. Other requests for an upgrade are answered, and their connection
        is closed, because uvicorn drops what has arrived behind their heads.
        """
        self._head_timer.stop()
        if not self._serves_all_paths and self.url != HEALTH:
            raise self._meter.set_error(_too_many_connections_error(self._connections.limit))
        asks_for_upgrade = self.parser.should_upgrade()
        if asks_for_upgrade and _has_body(self.headers):
            raise self._meter.set_error(_upgrade_error())
        queued_field_counts = [len([*cycle.scope["headers"]]) for cycle, _ in self.pipeline]
        _check_pipeline(queued_field_counts, len(self.headers))
        super().on_headers_complete()
        if asks_for_upgrade:
            self.cycle.keep_alive = False
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
        """Reject data that is not HTTP, or a request for which a callback of the parser has raised an error."""
        self._reject(self._meter.error or RequestError(Code.MALFORMED_REQUEST, msg))

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._running = cycle
        if not self.flow.write_paused:
            # If the timer of the last response went on, it would count the bytes that this response adds to the buffer
            # as bytes that the client has not read.
            self._write_timer.stop()

        async def run_and_time_rest(*arguments: Any) -> None:
            try:
                await app(*arguments)
            finally:
                if not (cycle.response_complete or cycle.disconnected):
                    # Uvicorn closes the connection as soon as what was written of the response has been sent.
                    self._write_timer.start(self.transport)

        super()._start_asgi_task(cycle, run_and_time_rest)

    def _on_late_head(self) -> None:
        """Reject a request whose head is late, or close a connection on which no head has begun.

        While reading is paused, start the timer again instead.
        """
        if self.flow.read_paused:
            # The rest of the head is not read while an earlier request is being answered.
            self._head_timer.start()
        elif self._meter.pending_bytes:
            self._reject(_late_head_error(self._head_timer.head_s))
        else:
            self.transport.close()

    def _reject(self, error: RequestError) -> None:
        """Respond with an error if the client would take it for the response to this request; close the connection."""
        if _can_respond(self._running, self.cycle if self._meter.in_body else None):
            self.transport.write(_encode_response(error))
        _disconnect(self._running)
        self.transport.close()
        self.loop.call_later(FLUSH_S, self.transport.abort)


def _disconnect(cycle: RequestResponseCycle | None) -> None:
    """Notify a request that is being answered that its client has disconnected."""
    if cycle is not None and not cycle.response_complete:
        cycle.disconnected = True
        cycle.message_event.set()


def _can_respond(running: RequestResponseCycle | None, received: RequestResponseCycle | None) -> bool:
    """Whether the next bytes that are sent would be read as the response to the request that is being parsed.

    Args:
        running: The request that is being answered.
        received: The request whose body is being received; None while a head is being received.
    """
    if running is None or running.response_complete:
        return received is None
    return running is received and not running.response_started


def _has_body(headers: list[tuple[bytes, bytes]]) -> bool:
    """Whether a head, with names in lower case, announces a body."""
    return any(name == b"transfer-encoding" or (name == b"content-length" and value != b"0") for name, value in headers)


def _upgrade_error() -> RequestError:
    detail = "a request with a body may not ask for another protocol: send it without Upgrade (curl: --http1.1)"
    return RequestError(Code.MALFORMED_REQUEST, detail)


def _check_pipeline(queued_field_counts: list[int], field_count: int) -> None:
    """Check that a request may be queued behind the requests that already wait.

    Args:
        queued_field_counts: Number of fields of each request that waits.
        field_count: Number of fields of the request.

    Raises:
        OverflowError: If too many requests or fields would wait; the parser then calls `send_400_response`.
    """
    if len(queued_field_counts) >= MAX_PIPELINED or sum(queued_field_counts) + field_count > MAX_PIPELINED_FIELDS:
        raise OverflowError(f"more than {MAX_PIPELINED} requests, or {MAX_PIPELINED_FIELDS} fields, wait")


def _late_head_error(head_s: float) -> RequestError:
    detail = f"the request's line and headers did not arrive within request_head_s = {head_s:g}"
    return RequestError(Code.REQUEST_HEAD_STALLED, detail, limit=head_s)


def _too_many_connections_error(max_connections: int) -> RequestError:
    detail = f"max_connections = {max_connections} connections are open; try again shortly"
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
