"""Middleware that checks every request: its host and origin; unless it is public, also its sender, rate and scopes."""

from __future__ import annotations

import logging
import time
from contextlib import suppress

import redis
from fastapi import Request
from redis.asyncio import Redis
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from masksmith_service import problems
from masksmith_service.errors import RequestError, translate
from masksmith_service.middleware import host_checks
from masksmith_service.settings import Settings
from masksmith_state.telemetry import logs
from masksmith_wire.errors import Code

from .principal import Principal, TokenIssuer, authenticate, is_valid, session_cookie
from .rates import check_rate
from .scopes import accepted_scopes

log = logging.getLogger(__name__)

PUBLIC_PATHS = frozenset({"/healthz", "/readyz", "/openapi.json", "/login", "/favicon.ico"})
"""Paths that need no key, because their responses contain no user data."""
PUBLIC_PREFIX = "/static/"
"""Beginning of further paths that need no key."""
CHECK_AFTER_S = 1.0
"""If the last check of a token is longer ago than this many seconds, the token is checked again.

This is done at the end of a request's body, and before each further part of a response.
"""


class AuthenticationMiddleware:
    """ASGI middleware that checks and authenticates requests, and stores the sender as `request.state.principal`.

    A public request is not authenticated, and has no principal.
    """

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app, self._settings = app, settings
        self._issuer = make_issuer(settings)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on if it passes the checks, else respond with the error."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        try:
            principal = await self._check(request)
        except (RequestError, redis.RedisError) as error:
            await problems.respond(request, error)(scope, receive, send)
            return
        if principal is None:
            await self._app(scope, receive, send)
            return
        exchange = _LongExchange(receive, send, request.app.state.masksmith.async_redis, principal)
        try:
            await self._app(scope, exchange.receive, exchange.send)
        except _KeyEndedError:
            # The server closes the connection of a response that is not complete.
            log.warning("the response ends early: its key was revoked or has expired")

    async def _check(self, request: Request) -> Principal | None:
        """Check a request, and return its sender; None if the request is public."""
        host_checks.check_single_fields(request.headers)
        host_checks.check_host(request.headers, self._settings)
        host_checks.check_origin(request.method, request.headers, self._settings)
        # The path by which the request is routed; the URL also depends on the field Host.
        path = request.scope["path"]
        if _is_public(request.method, path):
            return None
        state = request.app.state.masksmith
        client: Redis = state.async_redis
        principal = await authenticate(
            client, self._settings, request.headers, session_cookie(request), state.keys_seen, self._issuer
        )
        logs.add_fields(key=principal.key or None)
        await check_rate(client, principal)
        principal.require_one_of(accepted_scopes(request.method, path))
        request.state.principal = principal
        return principal


class _KeyEndedError(Exception):
    """The key of a request was revoked or has expired while the response was sent."""


class _LongExchange:
    """Receives a request and sends its response; if either takes long, the token is checked again.

    Without the second check, a client could send all but the end of a request, and finish the request after its key was
    revoked; and a download would not stop when its key is revoked.
    """

    def __init__(self, receive: Receive, send: Send, client: Redis, principal: Principal) -> None:
        self._receive, self._send, self._client, self._principal = receive, send, client, principal
        self._checked_at = time.monotonic()

    async def receive(self) -> Message:
        """Receive the next message.

        Raises:
            RequestError: At the end of a body that took long: 401, if the token is no longer valid; the error of
                `translate`, such as 503, if the broker fails.
        """
        message = await self._receive()
        is_end = message["type"] == "http.request" and not message.get("more_body", False)
        if is_end and self._is_check_due():
            try:
                is_still_valid = await self._check()
            except redis.RedisError as error:
                raise translate(error) from None
            if not is_still_valid:
                detail = "the key was revoked or has expired while the request was received; nothing was done"
                raise RequestError(Code.UNAUTHORIZED, detail)
        return message

    async def send(self, message: Message) -> None:
        """Send a message; if it is a part of a body, but not the last, and a check is due, check the key first.

        A response to a user of an issuer is not checked, since the token of an issuer expires after minutes, and is
        not revoked. While the broker is unavailable, responses go on.

        Raises:
            _KeyEndedError: If the key was revoked or has expired; the message is not sent.
        """
        is_part_before_last = message["type"] == "http.response.body" and message.get("more_body", False)
        if is_part_before_last and not self._principal.is_user_of_issuer and self._is_check_due():
            with suppress(redis.RedisError):
                if not await self._check():
                    raise _KeyEndedError
        await self._send(message)

    def _is_check_due(self) -> bool:
        return time.monotonic() - self._checked_at > CHECK_AFTER_S

    async def _check(self) -> bool:
        """Check the token again, and return whether it is valid; the next check is due after `CHECK_AFTER_S`."""
        self._checked_at = time.monotonic()
        return await is_valid(self._client, self._principal)


def make_issuer(settings: Settings) -> TokenIssuer | None:
    """Return the OpenID Connect issuer of the settings, or None. Its library is imported only if there is one."""
    if not settings.oidc_issuer:
        return None
    from .issuer import Issuer

    return Issuer(settings)


def _is_public(method: str, path: str) -> bool:
    """Whether a request is passed on without authentication.

    Login and logout at `/v1/session` check the token or cookie themselves.
    """
    return path in PUBLIC_PATHS or path.startswith(PUBLIC_PREFIX) or (path == "/v1/session" and method != "GET")
