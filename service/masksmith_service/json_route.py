"""The class of routes with a JSON document: an object of the document may not repeat a member."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute

from masksmith_wire.json_text import parse_json


class _JsonRequest(Request):
    """A request whose document is parsed by `parse_json`."""

    async def json(self) -> Any:
        return parse_json(await self.body())


class JsonRoute(APIRoute):
    """A route whose JSON document is refused, instead of read with its last value, if it repeats a member.

    The framework answers every error of parsing with status 400; `problems` takes the reason from the error's cause.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return a handler that passes a `_JsonRequest` to the handler of the base class."""
        handle = super().get_route_handler()

        async def handle_json(request: Request) -> Response:
            return await handle(_JsonRequest(request.scope, request.receive))

        return handle_json
