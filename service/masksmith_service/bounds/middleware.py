"""Reserves what a request needs until its response has been sent: memory, or a place among the streams or the lists.

The numbers of concurrent event streams, and of concurrent lists and comparisons, are limited.
"""

from __future__ import annotations

import re

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from masksmith_service import problems
from masksmith_service.errors import RequestError
from masksmith_service.middleware.host_checks import SAFE_METHODS
from masksmith_service.settings import Settings

from .capacity import Capacity
from .table import MIB, cost, limit

STREAM_PATHS = re.compile(r"/v1/jobs/[^/]*/events")
DOWNLOAD_PATHS = re.compile(r"/v1/jobs/[^/]*/(masks|weights|pruned|benchmark)")
PICTURE_PATHS = re.compile(r"/v1/jobs/[^/]*/(window|profile)|/compare")
LIST_PATHS = re.compile(r"(/v1)?/jobs|/v1/references|/compare")
UPLOAD_PATHS = re.compile(r"/v1/(tensors(/.*)?|masks)")
LOGIN_PATH = "/v1/session"


class Reservation:
    """The amounts of capacities that a request has acquired.

    Args:
        key: The API key of the request; empty if none is required.
    """

    def __init__(self, key: str) -> None:
        self._key = key
        self._acquired: list[tuple[Capacity, int]] = []

    async def add(self, capacity: Capacity, amount: int) -> None:
        """Acquire an amount of a capacity; raises as `Capacity.acquire` does."""
        await capacity.acquire(self._key, amount)
        self._acquired.append((capacity, amount))

    def release(self) -> None:
        """Release all amounts that were acquired and not released yet."""
        while self._acquired:
            capacity, amount = self._acquired.pop()
            capacity.release(self._key, amount)


class CapacityMiddleware:
    """ASGI middleware that acquires what a request needs, passes the request on, and releases all that it has acquired.

    Requests without a principal are for public paths; they need no capacity, since bodies and responses are small.
    """

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app, self._settings = app, settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or respond with the error that there is no capacity."""
        principal = scope.get("state", {}).get("principal") if scope["type"] == "http" else None
        if principal is None:
            await self._app(scope, receive, send)
            return
        reservation = Reservation(principal.key)
        try:
            for capacity, amount in self._needed_amounts(scope):
                await reservation.add(capacity, amount)
            scope["state"]["reservation"] = reservation
            await self._app(scope, receive, send)
        except RequestError as error:
            await problems.respond(Request(scope), error)(scope, receive, send)
        finally:
            reservation.release()

    def _needed_amounts(self, scope: Scope) -> list[tuple[Capacity, int]]:
        """Return the amounts that are acquired before a request is passed on; its route may acquire more."""
        capacities = scope["app"].state.masksmith.capacities
        memory = memory_of(scope["method"], scope["path"], _length(scope), self._settings)
        amounts = [(capacities.memory, memory)] if memory else []
        if STREAM_PATHS.fullmatch(scope["path"]) and scope["method"] == "GET":
            amounts.append((capacities.streams, 1))
        if LIST_PATHS.fullmatch(scope["path"]) and scope["method"] in SAFE_METHODS:
            amounts.append((capacities.lists, 1))
        return amounts


def memory_of(method: str, path: str, length: int | None, settings: Settings) -> int:
    """Estimate the memory of a request, in bytes, before its body is read.

    Args:
        method: The request's method.
        path: The request's path.
        length: The request's Content-Length; None if the body is sent in chunks.
        settings: `max_document_bytes` is the largest size of a JSON document.
    """
    if method in SAFE_METHODS:
        if DOWNLOAD_PATHS.fullmatch(path):
            return cost("download")
        return cost("picture") if PICTURE_PATHS.fullmatch(path) else 0
    if UPLOAD_PATHS.fullmatch(path) and method != "DELETE":
        return cost("upload") if length is None else min(cost("upload"), MIB + 4 * length)
    limit_bytes = body_limit(path, settings)
    # `cost("document")` is the memory for one byte of a document.
    return cost("document") * (limit_bytes if length is None else min(length, limit_bytes))


def body_limit(path: str, settings: Settings) -> int:
    """Limit of the size of a JSON document, or of the form of a login, that is sent to a path; in bytes."""
    return limit("login_bytes") if path == LOGIN_PATH else settings.max_document_bytes


def _length(scope: Scope) -> int | None:
    """Content-Length of a request; 0 if it is missing or invalid; None if the body is sent in chunks."""
    headers = Headers(scope=scope)
    if "transfer-encoding" in headers:
        return None
    length = headers.get("content-length", "0")
    return int(length) if length.isdecimal() else 0
