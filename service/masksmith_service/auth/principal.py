"""Callers: whose key a request carries, and what it may see."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, Request
from redis.asyncio import Redis

from masksmith_service.errors import RequestError
from masksmith_service.settings import Settings
from masksmith_state.keys import (
    KEYS,
    KeyInfo,
    Quotas,
    Role,
    key_id_of,
    parse_key,
    redis_key_of,
    session_key,
    token_matches,
)
from masksmith_wire.errors import Code

COOKIE = "masksmith_session"


@dataclass(frozen=True)
class Caller:
    """Who asks.

    Attributes:
        key: The key's id; empty for whoever needs none.
        quotas: With the service's own where the key has none of its own.
    """

    key: str
    name: str
    role: Role
    quotas: Quotas

    @property
    def is_admin(self) -> bool:
        """Whether everything may be seen."""
        return self.role is Role.ADMIN

    def sees(self, owner: str) -> bool:
        """Whether what a key made may be seen."""
        return self.is_admin or owner == self.key


LOCAL = Caller("", "local", Role.ADMIN, Quotas())
"""Whoever asks a service that asks nobody for a key: one for this machine alone, or one said to be insecure."""


async def identify(client: Redis, settings: Settings, headers: Mapping[str, str], cookie: str | None) -> Caller:
    """Find out who asks, by bearer token or session cookie.

    Raises:
        RequestError: 401, if a key is needed and none that is valid came.
    """
    token = _bearer(headers.get("authorization"))
    if token is not None:
        info = await find_key(client, token)
    else:
        key: Any = await client.get(session_key(cookie)) if cookie else None
        info = await _valid(client, key) if key else None
    if info is not None:
        return _caller(info, settings)
    if settings.insecure and token is None:
        return LOCAL
    if settings.is_local and not await client.exists(KEYS):
        return LOCAL
    what = "this service asks for a key" if token is None else "the key is unknown or was revoked"
    detail = (
        f"{what}: send it as 'Authorization: Bearer ...'; the client takes it from MASKSMITH_TOKEN, and "
        "'masksmith keys create' makes one"
    )
    raise RequestError(Code.UNAUTHORIZED, detail)


async def find_key(client: Redis, token: str) -> KeyInfo | None:
    """Find the valid key of a token."""
    key = key_id_of(token)
    if key is None:
        return None
    return await _valid(client, key, token)


async def is_valid(client: Redis, caller: Caller) -> bool:
    """Whether a caller would be let in still: a key can be revoked while a long answer is under way."""
    return not caller.key or await _valid(client, caller.key) is not None


async def _valid(client: Redis, key: str, token: str | None = None) -> KeyInfo | None:
    """Read a key that is not revoked; if a token is given, its own."""
    fields = await client.hgetall(redis_key_of(key))
    info = parse_key(key, fields) if token is None or token_matches(token, fields) else None
    return None if info is None or info.revoked_at is not None else info


def _bearer(header: str | None) -> str | None:
    kind, _, token = (header or "").partition(" ")
    return token.strip() if kind.lower() == "bearer" else None


def _caller(key: KeyInfo, settings: Settings) -> Caller:
    own = key.model_dump(include=set(Quotas.model_fields), exclude_none=True)
    quotas = Quotas(
        stored_bytes=settings.key_stored_bytes, live_jobs=settings.key_live_jobs, requests_s=settings.key_requests_s
    )
    return Caller(key.id, key.name, key.role, quotas.model_copy(update=own))


async def _of_request(request: Request) -> Caller:
    caller: Caller = request.state.caller
    return caller


async def _admin(caller: Annotated[Caller, Depends(_of_request)]) -> Caller:
    if not caller.is_admin:
        raise RequestError(Code.FORBIDDEN, f"key {caller.name!r} has the role user; this takes an admin's key")
    return caller


CallerDep = Annotated[Caller, Depends(_of_request)]
AdminDep = Annotated[Caller, Depends(_admin)]
