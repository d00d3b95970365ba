"""Closes the connection after a response that started before the body of its request was read to its end."""

from __future__ import annotations

import asyncio

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

DRAIN_BYTES, DRAIN_S = 2**20, 2.0
"""Limits for reading the rest of a body: bytes after the start of the response, and seconds before its end is sent.

The seconds limit `_BodyTracker.finish` only. Closing a connection with unread data sends a TCP reset, after which the
client may lose the response.
"""


class UnreadBodyMiddleware:
    """ASGI middleware that closes a connection if a response starts before the request's body was read to its end."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on; close its connection if the response starts before the body, if any, is read."""
        if scope["type"] != "http" or not _has_body(Headers(scope=scope)):
            await self._app(scope, receive, send)
            return
        tracker = _BodyTracker(receive, send)
        await self._app(scope, tracker.receive, tracker.send)
        await tracker.finish()


class _BodyTracker:
    """Wraps receive and send of one request, to close its connection if the response starts before its body is read."""

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive, self._send = receive, send
        self._is_read = self._closes_connection = self._end_is_withheld = False
        self._drained_bytes = 0

    async def receive(self) -> Message:
        """Receive the next message; a disconnect if more than `DRAIN_BYTES` have arrived since the response started."""
        if self._drained_bytes > DRAIN_BYTES:
            return {"type": "http.disconnect"}
        message = await self._receive()
        self._is_read = not message.get("more_body", False)
        if self._closes_connection:
            self._drained_bytes += len(message.get("body", b""))
        return message

    async def send(self, message: Message) -> None:
        """Send a message; if the connection is to be closed, the end of the response is sent by `finish`."""
        if message["type"] == "http.response.start" and not self._is_read:
            self._closes_connection = True
            MutableHeaders(scope=message)["connection"] = "close"
        elif self._closes_connection and not message.get("more_body", False):
            self._end_is_withheld = True
            message = {**message, "more_body": True}
        await self._send(message)

    async def finish(self) -> None:
        """Read a limited part of the remaining body, then send the end of the response, if `send` withheld it.

        The server then closes the connection.
        """
        if not self._end_is_withheld:
            return
        try:
            async with asyncio.timeout(DRAIN_S):
                while not self._is_read and self._drained_bytes <= DRAIN_BYTES:
                    await self.receive()
        except TimeoutError:
            pass
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})


def _has_body(headers: Headers) -> bool:
    return "transfer-encoding" in headers or headers.get("content-length", "0") != "0"
