"""Holds the memory, and the place of an event stream, that a request is counted as, until it is answered."""

from __future__ import annotations

import re

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from masksmith_service import problems
from masksmith_service.errors import RequestError
from masksmith_service.middleware.host_checks import READS
from masksmith_service.settings import Settings

from .capacity import Capacity
from .table import MIB, cost, limit

STREAMS = re.compile(r"/v1/jobs/[^/]*/events")
DOWNLOADS = re.compile(r"/v1/jobs/[^/]*/(masks|weights|pruned|benchmark)")
PICTURES = re.compile(r"/v1/jobs/[^/]*/(window|profile)")
UPLOADS = re.compile(r"/v1/(tensors(/.*)?|masks)")
LOGIN = "/v1/session"


class Held:
    """What a request holds of capacities.

    Args:
        key: The key of the request.
    """

    def __init__(self, key: str) -> None:
        self._key = key
        self._parts: list[tuple[Capacity, int]] = []

    async def add(self, capacity: Capacity, amount: int) -> None:
        """Hold a part of a capacity; raises as `Capacity.acquire` does."""
        await capacity.acquire(self._key, amount)
        self._parts.append((capacity, amount))

    def release(self) -> None:
        """Give everything back."""
        while self._parts:
            capacity, amount = self._parts.pop()
            capacity.release(self._key, amount)


class CapacityMiddleware:
    """ASGI middleware that lets a request pass when there is capacity for it.

    A request without a principal is one that needs no key: a login, which is small, or a page without data.
    """

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app, self._settings = app, settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or respond that there is no capacity."""
        principal = scope.get("state", {}).get("principal") if scope["type"] == "http" else None
        if principal is None:
            await self._app(scope, receive, send)
            return
        held = Held(principal.key)
        try:
            for capacity, amount in self._needs(scope):
                await held.add(capacity, amount)
            scope["state"]["held"] = held
            await self._app(scope, receive, send)
        except RequestError as error:
            await problems.respond(Request(scope), error)(scope, receive, send)
        finally:
            held.release()

    def _needs(self, scope: Scope) -> list[tuple[Capacity, int]]:
        capacities = scope["app"].state.masksmith.capacities
        memory = memory_of(scope["method"], scope["path"], _length(scope), self._settings)
        needs = [(capacities.memory, memory)] if memory else []
        if STREAMS.fullmatch(scope["path"]) and scope["method"] == "GET":
            needs.append((capacities.streams, 1))
        return needs


def memory_of(method: str, path: str, length: int | None, settings: Settings) -> int:
    """Bytes of memory that a request is counted as, from what is known before its body is read.

    Args:
        method: Its method.
        path: Its path.
        length: Its Content-Length; None if the body is sent in chunks.
        settings: The largest document.
    """
    if method in READS:
        if DOWNLOADS.fullmatch(path):
            return cost("download")
        return cost("picture") if PICTURES.fullmatch(path) else 0
    if UPLOADS.fullmatch(path) and method != "DELETE":
        return cost("upload") if length is None else min(cost("upload"), MIB + 4 * length)
    largest = body_limit(path, settings)
    return cost("document") * (largest if length is None else min(length, largest))


def body_limit(path: str, settings: Settings) -> int:
    """Largest JSON document that a path takes."""
    return limit("login_bytes") if path == LOGIN else settings.max_document_bytes


def _length(scope: Scope) -> int | None:
    headers = Headers(scope=scope)
    if "transfer-encoding" in headers:
        return None
    length = headers.get("content-length", "0")
    return int(length) if length.isdecimal() else 0
