"""Access log: gives every request an id, and logs a line for every write and every download of results."""

from __future__ import annotations

import logging
import re
import time
import uuid
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from masksmith_service import problems
from masksmith_state.panics import is_panic
from masksmith_state.telemetry import logs

from .addresses import is_address
from .host_checks import READS

audit = logging.getLogger("masksmith_service.audit")

HEADER = "X-Request-Id"
DOWNLOADS = re.compile(r"/v1/jobs/[^/]*/(?:masks|weights|pruned|benchmark)")
"""Paths whose reads are logged, too: what leaves the installation."""
_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


class AccessLogMiddleware:
    """ASGI middleware that sets request ids, and logs downloads and requests other than reads."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on with an id: the one in its header if valid, else a new one."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        sent_id = Headers(scope=scope).get(HEADER, "")
        request_id = sent_id if _ID.fullmatch(sent_id) else uuid.uuid4().hex
        started, status, sent_bytes = time.monotonic(), 0, 0
        # A trusted proxy's header replaces the client further in.
        peer = (scope.get("client") or (None,))[0]

        async def send_with_id(message: Message) -> None:
            nonlocal status, sent_bytes
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)[HEADER] = request_id
            await send(message)
            sent_bytes += len(message.get("body", b""))

        with logs.context(request=request_id):
            try:
                await self._app(scope, receive, send_with_id)
            except BaseException as error:
                if status or not (isinstance(error, Exception) or is_panic(error)):
                    raise
                await problems.respond_to_bug(Request(scope), error)(scope, receive, send_with_id)
            finally:
                is_download = scope["method"] == "GET" and DOWNLOADS.fullmatch(scope["path"]) is not None
                if is_download or scope["method"] not in READS:
                    fields = {"bytes": sent_bytes} if is_download else {}
                    _write(scope, status, time.monotonic() - started, peer, fields)


def _write(scope: Scope, status: int, took_s: float, peer: str | None, more: dict[str, Any]) -> None:
    # Only the path is logged: queries may be confidential, and headers contain secrets.
    path = str(scope["path"])[:200]
    client = (scope.get("client") or (None,))[0]
    fields = {"status": status, "took_s": round(took_s, 3), "client": peer, **more}
    if client != peer:
        fields["forwarded_for"] = client if client is not None and is_address(client) else "invalid"
    audit.info("%s %s", scope["method"], path.encode("unicode_escape").decode(), extra={"fields": fields})
