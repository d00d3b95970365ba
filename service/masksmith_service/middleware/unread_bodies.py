"""Bodies left unread: the connection is closed after the answer, because nothing else would ever end it."""

from __future__ import annotations

import asyncio

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

DRAIN_BYTES, DRAIN_S = 2**20, 2.0
"""How much of a body, and for how long, is read after the answer: a client that is cut off at once may lose it."""


class UnreadBodies:
    """ASGI middleware that closes connections whose requests were answered before their bodies were read."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and watch how far its body is read."""
        if scope["type"] != "http" or not _has_body(Headers(scope=scope)):
            await self._app(scope, receive, send)
            return
        body = _Body(receive, send)
        await self._app(scope, body.receive, body.send)
        await body.finish()


class _Body:
    """A request's body on its way to the application, and the answer on its way back."""

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive, self._send = receive, send
        self._is_read = self._closes = self._is_answered = False
        self._late_bytes = 0

    async def receive(self) -> Message:
        """Take the next piece; once the answer has begun, no more of them than `DRAIN_BYTES`."""
        if self._late_bytes > DRAIN_BYTES:
            return {"type": "http.disconnect"}
        message = await self._receive()
        self._is_read = not message.get("more_body", False)
        if self._closes:
            self._late_bytes += len(message.get("body", b""))
        return message

    async def send(self, message: Message) -> None:
        """Announce the end of the connection; the end of the answer is left to `finish`."""
        if message["type"] == "http.response.start" and not self._is_read:
            self._closes = True
            MutableHeaders(scope=message)["connection"] = "close"
        elif self._closes and not message.get("more_body", False):
            self._is_answered = True
            message = {**message, "more_body": True}
        await self._send(message)

    async def finish(self) -> None:
        """Read a little more, and end the answer, upon which the server closes the connection."""
        if not self._is_answered:
            return
        try:
            async with asyncio.timeout(DRAIN_S):
                while not self._is_read and self._late_bytes <= DRAIN_BYTES:
                    await self.receive()
        except TimeoutError:
            pass
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})


def _has_body(headers: Headers) -> bool:
    return "transfer-encoding" in headers or headers.get("content-length", "0") != "0"
