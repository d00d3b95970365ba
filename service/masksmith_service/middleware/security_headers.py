"""Security headers of every response: against caching, MIME sniffing, scripts, framing and other origins."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

ALWAYS: Mapping[str, str] = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
"""Headers that replace those that a route has set."""
UNLESS_SET: Mapping[str, str] = {
    "Content-Security-Policy": "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "same-origin",
}
"""Headers for responses whose route has not set them; pages set a Content-Security-Policy that allows their scripts."""


class SecurityHeadersMiddleware:
    """ASGI middleware that adds security headers; it is the outermost, so that all responses have them."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and add the headers to its response."""

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                add_headers(MutableHeaders(scope=message))
            await send(message)

        await self._app(scope, receive, send_with_headers if scope["type"] == "http" else send)


def add_headers(headers: MutableHeaders) -> None:
    """Add the headers to those of a response."""
    headers.update(ALWAYS)
    for name, value in UNLESS_SET.items():
        headers.setdefault(name, value)
