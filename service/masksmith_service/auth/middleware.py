"""The gate: every request passes it, and what is not said to be open takes a key."""

from __future__ import annotations

import math

import redis
from fastapi import Request
from redis.asyncio import Redis
from starlette.types import ASGIApp, Receive, Scope, Send

from masksmith_service import problems
from masksmith_service.errors import RequestError
from masksmith_service.middleware import host_checks
from masksmith_service.settings import Settings
from masksmith_state import scripts
from masksmith_state.telemetry import logs
from masksmith_wire.errors import Code

from .principal import COOKIE, Caller, identify

OPEN = frozenset({"/healthz", "/readyz", "/openapi.json", "/login", "/favicon.ico"})
"""Paths that need no key: they tell nothing about anybody's work."""
OPEN_BELOW = "/static/"
BURST_S = 10.0
"""A key that was idle may send the requests of this many seconds at once."""


class Gate:
    """ASGI middleware that lets requests in and says whose they are."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app, self._settings = app, settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request pass, or answer it with what is missing."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        try:
            await self._check(request)
        except (RequestError, redis.RedisError) as error:
            await problems.respond(request, error)(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _check(self, request: Request) -> None:
        host_checks.check_host(request.headers, self._settings)
        host_checks.check_origin(request.method, request.headers, self._settings)
        if _is_open(request.method, request.url.path):
            return
        client: Redis = request.app.state.masksmith.events
        caller = await identify(client, self._settings, request.headers, request.cookies.get(COOKIE))
        logs.add_fields(key=caller.key or None)
        await _spend(client, caller)
        request.state.caller = caller


def _is_open(method: str, path: str) -> bool:
    return path in OPEN or path.startswith(OPEN_BELOW) or (path == "/v1/session" and method != "GET")


async def _spend(client: Redis, caller: Caller) -> None:
    """Count a request against the key's rate.

    Raises:
        RequestError: 429, if there were too many.
    """
    rate = caller.quotas.requests_s
    if rate is None:
        return
    wait_s = float(await client.eval(scripts.load(__package__)["spend"], 0, caller.key, rate, max(1.0, rate * BURST_S)))
    if wait_s > 0:
        detail = f"key {caller.name!r} may send {rate:g} requests a second (requests_s); try again in {wait_s:.1f} s"
        raise RequestError(Code.RATE_LIMITED, detail, retry_after_s=math.ceil(wait_s), limit=rate)
