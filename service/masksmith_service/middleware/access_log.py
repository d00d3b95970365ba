"""Access log: sets the id of every request, and logs requests with unsafe methods and downloads of results."""

from __future__ import annotations

import logging
import re
import time
import uuid
from typing import Any
from urllib.parse import quote

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from masksmith_service import problems
from masksmith_service.errors import DOMAIN_ERRORS, RequestError, translate
from masksmith_state.panics import is_panic
from masksmith_state.telemetry import logs

from .addresses import is_address
from .host_checks import SAFE_METHODS

audit = logging.getLogger("masksmith_service.audit")
log = logging.getLogger(__name__)

HEADER = "X-Request-Id"
DOWNLOADS = re.compile(r"/v1/jobs/[^/]*/(?:masks|weights|pruned|benchmark|window|profile)")
"""Paths whose GET requests are logged, because results or scores leave the installation."""
PATH_CHARACTERS = "/:@!$&'()*+,;~"
"""Characters, besides letters, digits and `_.-`, that are logged as they are; others are percent-encoded."""
_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


class AccessLogMiddleware:
    """ASGI middleware that sets request ids, and logs downloads and requests with unsafe methods."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on with an id: the one in its header if valid, else a new one.

        An exception before the response starts is answered as a bug of the service. If an expected error occurs after
        that, for example because a result is deleted while it is sent, it is logged without a traceback. The server
        closes the connection of a response that is not complete.
        """
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        response = _LoggedResponse(scope, send)
        with logs.context(request=response.request_id):
            try:
                await self._app(scope, receive, response.send)
            except BaseException as error:
                expected = _expected_error(error) if response.status else None
                if expected is not None:
                    log.warning("the response ends early: %s", expected.detail)
                    return
                if response.status or not (isinstance(error, Exception) or is_panic(error)):
                    raise
                await problems.respond_to_bug(Request(scope), error)(scope, receive, response.send)
            finally:
                response.log()


def _expected_error(error: BaseException) -> RequestError | None:
    """Return the error that the client would have received before the response started; None if the error is a bug.

    If an error has a handler, but the response has started, Starlette raises a `RuntimeError` from the error.
    """
    cause = error.__cause__ if isinstance(error, RuntimeError) else error
    if isinstance(cause, RequestError):
        return cause
    return translate(cause) if isinstance(cause, DOMAIN_ERRORS) else None


class _LoggedResponse:
    """A response, with the id of its request in a header; counts what is sent, for the log."""

    def __init__(self, scope: Scope, send: Send) -> None:
        id_in_header = Headers(scope=scope).get(HEADER, "")
        self.request_id = id_in_header if _ID.fullmatch(id_in_header) else uuid.uuid4().hex
        self.status = 0
        self._scope, self._send = scope, send
        self._started_at, self._sent_bytes = time.monotonic(), 0
        # The address of the connection. Inner middleware may replace it, in the scope, by the one that a trusted proxy
        # forwards.
        self._peer = (scope.get("client") or (None,))[0]

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            MutableHeaders(scope=message)[HEADER] = self.request_id
        await self._send(message)
        self._sent_bytes += len(message.get("body", b""))

    def log(self) -> None:
        """Log a line, if the request is a download or has an unsafe method."""
        is_download = self._scope["method"] == "GET" and DOWNLOADS.fullmatch(self._scope["path"]) is not None
        if is_download or self._scope["method"] not in SAFE_METHODS:
            _write(self._scope, self._fields(is_download=is_download))

    def _fields(self, *, is_download: bool) -> dict[str, Any]:
        took_s = round(time.monotonic() - self._started_at, 3)
        fields: dict[str, Any] = {"status": self.status, "took_s": took_s, "client": self._peer}
        if is_download:
            fields["bytes"] = self._sent_bytes
        address = (self._scope.get("client") or (None,))[0]
        if address != self._peer:
            fields["forwarded_for"] = address if address is not None and is_address(address) else "invalid"
        return fields


def _write(scope: Scope, fields: dict[str, Any]) -> None:
    # Only the path is logged: queries may be confidential, and headers contain secrets. It is percent-encoded, because
    # fields are separated by spaces: a path with spaces would look like fields.
    audit.info(
        "%s %s", scope["method"], quote(str(scope["path"])[:200], safe=PATH_CHARACTERS), extra={"fields": fields}
    )
