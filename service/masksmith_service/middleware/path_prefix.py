"""Serves the installation below a path prefix: removes it from request paths, and adds it to `Location` and cookies."""

from __future__ import annotations

import ipaddress
import re

from starlette.types import ASGIApp, Message, Receive, Scope, Send

PREFIX_FORM = re.compile(rb"(/[A-Za-z0-9_.~-]+)+")
"""Form of a prefix; anything else in `X-Forwarded-Prefix` is ignored."""

_COOKIE_PATH = re.compile(rb"(; *path=)/(?=;|$)", re.IGNORECASE)


class PathPrefixMiddleware:
    """Serves `<prefix>/x` as `/x`; a path without the prefix is served unchanged.

    Links in pages are relative and need no prefix. It is added to `Location` headers with an absolute path (`/x`), and
    to the path of cookies. Without the prefix, the browser would send a cookie to all applications of the host, and
    another installation on the host would replace it by its own.

    Args:
        app: The application.
        prefix: Such as `/tools/masks`. If it is empty, `X-Forwarded-Prefix` of a trusted proxy is used.
        trusted_proxies: Addresses or networks, separated by commas; `*` for all. Other texts are ignored.
    """

    def __init__(self, app: ASGIApp, prefix: str, trusted_proxies: str = "") -> None:
        self._app, self._prefix = app, prefix.encode()
        texts = [text.strip() for text in trusted_proxies.split(",") if text.strip()]
        self._trusts_all = "*" in texts
        self._networks = [network for text in texts if (network := _parse_network(text)) is not None]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on without the prefix, and add the prefix to the headers of its response."""
        prefix = self._prefix_of(scope) if scope["type"] == "http" else b""
        if not prefix:
            await self._app(scope, receive, send)
            return

        async def send_prefixed(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {
                    **message,
                    "headers": [_with_prefix(name, value, prefix) for name, value in message["headers"]],
                }
            await send(message)

        await self._app(_without_prefix(scope, prefix), receive, send_prefixed)

    def _prefix_of(self, scope: Scope) -> bytes:
        if self._prefix:
            return self._prefix
        forwarded_prefix = dict(scope["headers"]).get(b"x-forwarded-prefix", b"").rstrip(b"/")
        is_used = self._trusts(scope) and PREFIX_FORM.fullmatch(forwarded_prefix)
        return forwarded_prefix if is_used else b""

    def _trusts(self, scope: Scope) -> bool:
        if self._trusts_all:
            return True
        host = (scope.get("client") or ("",))[0]
        try:
            address = ipaddress.ip_address(host)
        except ValueError:  # a Unix socket has no address
            return False
        return any(address in network for network in self._networks)


def _parse_network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        return None


def _without_prefix(scope: Scope, prefix: bytes) -> Scope:
    if not scope["path"].startswith(prefix.decode() + "/"):
        return scope
    new_scope = {**scope, "path": scope["path"].removeprefix(prefix.decode())}
    if (raw_path := scope.get("raw_path")) is not None:
        new_scope["raw_path"] = raw_path.removeprefix(prefix)
    return new_scope


def _with_prefix(name: bytes, value: bytes, prefix: bytes) -> tuple[bytes, bytes]:
    if name.lower() == b"set-cookie":
        return name, _COOKIE_PATH.sub(rb"\1" + prefix, value)
    is_absolute_path = name.lower() == b"location" and value.startswith(b"/") and not value.startswith(b"//")
    return name, (prefix + value if is_absolute_path else value)
