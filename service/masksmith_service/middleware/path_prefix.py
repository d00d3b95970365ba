"""Removes the prefix below which a proxy serves the installation from the paths of requests."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send


class PathPrefixMiddleware:
    """Serves `PREFIX/x` as `/x`; a path without the prefix is served as it is.

    Pages and redirects have relative addresses, so that nothing else need know the prefix.

    Args:
        app: The application.
        prefix: Such as `/tools/masks`; empty removes nothing.
    """

    def __init__(self, app: ASGIApp, prefix: str) -> None:
        self._app, self._prefix = app, prefix

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        if scope["type"] == "http" and self._prefix and scope["path"].startswith(self._prefix + "/"):
            raw = scope.get("raw_path")
            shortened = {"path": scope["path"].removeprefix(self._prefix)}
            if raw is not None:
                shortened["raw_path"] = raw.removeprefix(self._prefix.encode())
            scope = {**scope, **shortened}
        await self._app(scope, receive, send)
