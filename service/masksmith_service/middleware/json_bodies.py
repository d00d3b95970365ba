"""Reads JSON request bodies before they are parsed, with limits of size, depth and time."""

from __future__ import annotations

import asyncio

import numpy as np
from fastapi import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from masksmith_service import problems
from masksmith_service.bounds.middleware import LOGIN_PATH, body_limit
from masksmith_service.errors import RequestError
from masksmith_service.settings import Settings
from masksmith_wire.errors import Code

from .host_checks import SAFE_METHODS

UPLOADS = ("/v1/tensors", "/v1/masks")
"""Beginnings of the paths that files are sent to; their routes read the body as it arrives."""
ADVICE = {LOGIN_PATH: "send nothing but the token", "/v1/jobs": "name fewer tensors in a job"}
"""What to do about a document that is too large, for paths with advice of their own."""
CHUNK_BYTES = 2**20
"""Largest number of quotes and brackets that are processed at once."""
_NOT_STRUCTURAL = bytes(set(range(256)) - set(b'"[]{}'))
"""All bytes but quotes and brackets."""
_DEPTH_CHANGE = np.zeros(256, np.int8)
"""By byte: 1 for an opening bracket, -1 for a closing bracket, else 0."""
_DEPTH_CHANGE[list(b"[{")] = 1
_DEPTH_CHANGE[list(b"]}")] = -1


class JsonBodyMiddleware:
    """ASGI middleware that reads JSON documents, and rejects those that exceed a limit or have a zero byte."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app, self._settings = app, settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Read and check the document of a request that may have one; then pass the request on.

        If the document is rejected, the request gets an error response; if the client has disconnected, it gets none.
        """
        if scope["type"] != "http" or scope["method"] in SAFE_METHODS or scope["path"].startswith(UPLOADS):
            await self._app(scope, receive, send)
            return
        try:
            body = await self._read(scope, receive)
        except RequestError as error:
            await problems.respond(Request(scope), error)(scope, receive, send)
        else:
            if body is not None:
                await self._app(scope, _replay(body, receive), send)

    async def _read(self, scope: Scope, receive: Receive) -> bytes | None:
        """Read a document and check it; None if the client has disconnected.

        Raises:
            RequestError: If the document is too large or too deep, has a zero byte, or does not arrive in time.
        """
        length = dict(scope["headers"]).get(b"content-length", b"0")
        limit = body_limit(scope["path"], self._settings)
        _check_size(int(length) if length.isdigit() else 0, limit, scope["path"])
        body, is_incomplete = bytearray(), True
        try:
            async with asyncio.timeout(self._settings.upload_stall_s):
                while is_incomplete:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return None
                    body += message.get("body", b"")
                    is_incomplete = message.get("more_body", False)
                    _check_size(len(body), limit, scope["path"])
        except TimeoutError:
            detail = (
                f"the document did not arrive within upload_stall_s = {self._settings.upload_stall_s:g}; send it again"
            )
            raise RequestError(Code.BODY_STALLED, detail, limit=self._settings.upload_stall_s) from None
        if 0 in body:
            # JSON has no zero byte in UTF-8. It has some in UTF-16 and UTF-32, in which `depth` cannot count brackets.
            raise RequestError(Code.INVALID_DOCUMENT, "the document is not JSON in UTF-8", status=400)
        self._check_depth(bytes(body))
        return bytes(body)

    def _check_depth(self, body: bytes) -> None:
        limit = self._settings.max_document_depth
        if depth(body) > limit:
            detail = f"the document is nested deeper than max_document_depth = {limit}"
            raise RequestError(Code.DOCUMENT_TOO_DEEP, detail, limit=limit)


def _check_size(size: int, limit: int, path: str) -> None:
    if size > limit:
        name = "login_bytes" if path == LOGIN_PATH else "max_document_bytes"
        advice = ADVICE.get(path, "send a smaller one")
        raise RequestError(Code.BODY_TOO_LARGE, f"the document is larger than {name} = {limit}; {advice}", limit=limit)


def depth(body: bytes) -> int:
    """Nesting depth of the lists and objects of a JSON text, 0 without any; brackets inside strings do not count."""
    # After escaped backslashes and escaped quotes are removed, each quote begins or ends a string.
    symbols = body.replace(b"\\\\", b"").replace(b'\\"', b"").translate(None, _NOT_STRUCTURAL)
    deepest = level = quotes = 0
    for start in range(0, len(symbols), CHUNK_BYTES):
        chunk = np.frombuffer(symbols, np.uint8, min(CHUNK_BYTES, len(symbols) - start), start)
        quote_counts = quotes + np.cumsum(chunk == ord('"'))
        levels = level + np.cumsum(np.where(quote_counts % 2 == 0, _DEPTH_CHANGE[chunk], 0))
        deepest, level, quotes = max(deepest, int(levels.max())), int(levels[-1]), int(quote_counts[-1])
    return deepest


def _replay(body: bytes, receive: Receive) -> Receive:
    """Receive function that returns the body, and after it the messages of `receive`."""
    pending: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive_replayed() -> Message:
        return pending.pop() if pending else await receive()

    return receive_replayed
