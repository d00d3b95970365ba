"""Authentication middleware: host and CSRF checks, authentication and rate limits of every request."""

from __future__ import annotations

import redis
from fastapi import Request
from redis.asyncio import Redis
from starlette.types import ASGIApp, Receive, Scope, Send

from masksmith_service import problems
from masksmith_service.errors import RequestError
from masksmith_service.middleware import host_checks
from masksmith_service.settings import Settings
from masksmith_state.telemetry import logs

from .principal import COOKIE_NAME, TokenIssuer, authenticate
from .rates import check_rate
from .scopes import needed_scopes

PUBLIC_PATHS = frozenset({"/healthz", "/readyz", "/openapi.json", "/login", "/favicon.ico"})
"""Paths that need no key, because their responses contain no user data."""
PUBLIC_PREFIX = "/static/"


class AuthenticationMiddleware:
    """ASGI middleware that checks and authenticates requests; `request.state.principal` is who sent the request."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app, self._settings = app, settings
        self._issuer = make_issuer(settings)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass an authenticated request on, or respond with the error."""
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
        if _is_public(request.method, request.url.path):
            return
        state = request.app.state.masksmith
        client: Redis = state.async_redis
        principal = await authenticate(
            client, self._settings, request.headers, request.cookies.get(COOKIE_NAME), state.keys_seen, self._issuer
        )
        logs.add_fields(key=principal.key or None)
        await check_rate(client, principal)
        principal.require(*needed_scopes(request.method, request.url.path))
        request.state.principal = principal


def make_issuer(settings: Settings) -> TokenIssuer | None:
    """Return the OpenID Connect issuer of the settings, or None. Its library is imported only if there is one."""
    if not settings.oidc_issuer:
        return None
    from .issuer import Issuer

    return Issuer(settings)


def _is_public(method: str, path: str) -> bool:
    return path in PUBLIC_PATHS or path.startswith(PUBLIC_PREFIX) or (path == "/v1/session" and method != "GET")
