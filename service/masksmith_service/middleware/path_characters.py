"""Rejects paths with control characters."""

from __future__ import annotations

import re

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from masksmith_service import problems
from masksmith_service.errors import RequestError
from masksmith_wire.errors import Code

CONTROL_CHARACTER = re.compile(r"[\x00-\x1f\x7f-\x9f]")


class PathCharactersMiddleware:
    """ASGI middleware that rejects a request whose decoded path has a control character, such as `%0A`.

    The regular expression of a route also matches a path with a newline at its end. Other middleware compares whole
    paths: without this class, such a request would reach its route, but not be subject to the checks of keys, the
    bounds and the log that apply to the path.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or respond with 400 if its path has a control character."""
        match = CONTROL_CHARACTER.search(scope["path"]) if scope["type"] == "http" else None
        if match is None:
            await self._app(scope, receive, send)
            return
        detail = f"the path has the control character U+{ord(match[0]):04X} at position {match.start()}; remove it"
        error = RequestError(Code.MALFORMED_REQUEST, detail)
        await problems.respond(Request(scope), error)(scope, receive, send)
