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

    The expression of a route matches before a newline at the end of a path. Other middleware compares whole paths, so
    such a request would reach its route past the keys, bounds and log that apply to the path.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or respond with 400 if its path has a control character."""
        found = CONTROL_CHARACTER.search(scope["path"]) if scope["type"] == "http" else None
        if found is None:
            await self._app(scope, receive, send)
            return
        detail = f"the path has the control character U+{ord(found[0]):04X} at position {found.start()}; remove it"
        error = RequestError(Code.MALFORMED_REQUEST, detail)
        await problems.respond(Request(scope), error)(scope, receive, send)
