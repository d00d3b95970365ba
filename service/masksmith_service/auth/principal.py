"""Principals: who sent a request, and what the sender may see and do; authentication by token or session cookie."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from threading import Event
from typing import Annotated, Protocol

import redis
from fastapi import Depends, Request
from redis.asyncio import Redis

from masksmith_service.errors import RequestError
from masksmith_service.middleware import host_checks
from masksmith_service.settings import Settings
from masksmith_state.keys import (
    KEYS,
    KeyInfo,
    Quotas,
    Role,
    Scope,
    hash_matches,
    hash_token,
    is_wrong_type,
    key_id_of,
    parse_key,
    redis_key_of,
    redis_key_of_session,
)
from masksmith_wire.errors import Code
from masksmith_wire.priorities import Priority

log = logging.getLogger(__name__)

COOKIE_NAME = "masksmith_session"


def session_cookie(request: Request) -> str | None:
    """Return the session token in a request's cookie; None without one.

    If there are several, the first is returned, because browsers send cookies with longer paths first: the first is
    that of this installation, and another one belongs to an installation at the root of the same host.
    `Request.cookies` is not used, because it has the last one.
    """
    for header in request.headers.getlist("cookie"):
        for part in header.split(";"):
            name, _, value = part.strip().partition("=")
            if name == COOKIE_NAME:
                return value
    return None


class TokenIssuer(Protocol):
    """An identity provider whose tokens are accepted."""

    async def principal_of(self, token: str) -> Principal | None:
        """Return the user that a token of the issuer names; None if the token is not valid."""


@dataclass(frozen=True)
class Principal:
    """The authenticated sender of a request.

    Attributes:
        key: Id of the sender's key. For a user of an issuer, this is an id that begins with `oidc-`; it is empty for
            `LOCAL_PRINCIPAL`, which has no key.
        name: Name of the key or user.
        role: Whether the sender is a user or an admin.
        quotas: Quotas, with the service's defaults for those that a key does not set. For `LOCAL_PRINCIPAL`, all are
            None, which means no limit.
        scopes: What the principal may do.
        token_hash: Hash of the key's token, with which the key is checked again (see `is_valid`); empty if there is no
            key.
        max_priority: Highest priority of the principal's jobs.
        token_expires_at: When the token of a user of an issuer expires, in seconds since 1970; None for a key, whose
            record has the time of its expiry, and for `LOCAL_PRINCIPAL`.
    """

    key: str
    name: str
    role: Role
    quotas: Quotas
    scopes: frozenset[Scope] = frozenset(Scope)
    token_hash: str = field(default="", repr=False)
    max_priority: Priority = Priority.INTERACTIVE
    token_expires_at: float | None = None

    @property
    def is_admin(self) -> bool:
        """Whether the principal is an admin, who may see the data of all owners."""
        return self.role is Role.ADMIN

    @property
    def names(self) -> frozenset[str]:
        """Texts that may stand for the principal in the rights to roots, and in the filter of jobs by key.

        They are the id and the name of a key, but only the id of a user of an issuer: such users may choose their names
        themselves, and could choose another user's name.
        """
        return frozenset({self.key} if self.is_user_of_issuer else {self.key, self.name})

    @property
    def visible_owner(self) -> str | None:
        """The owner whose data is visible; None if the data of all owners is visible."""
        return None if self.is_admin else self.key

    @property
    def is_user_of_issuer(self) -> bool:
        """Whether the principal is a user of an issuer, and not a key."""
        return self.token_expires_at is not None

    def require_one_of(self, scopes: Collection[Scope]) -> None:
        """Check that the principal has one of these scopes.

        Raises:
            RequestError: 403, if it has none of them.
        """
        if not self.scopes.intersection(scopes):
            needed, granted = " or ".join(scopes), ", ".join(sorted(self.scopes))
            detail = f"key {self.name!r} has the scopes {granted}; this request needs {needed}"
            raise RequestError(Code.FORBIDDEN, detail)

    def can_see(self, owner: str) -> bool:
        """Whether data of this owner is visible."""
        return self.is_admin or owner == self.key


LOCAL_PRINCIPAL = Principal("", "local", Role.ADMIN, Quotas())
"""Principal of requests that are served without a valid key: with `auth=none`, those from this machine until a key is
created, whatever token they have; with `insecure`, those without a bearer token."""


async def authenticate(
    client: Redis,
    settings: Settings,
    headers: Mapping[str, str],
    cookie: str | None,
    keys_seen: Event,
    issuer: TokenIssuer | None,
) -> Principal:
    """Authenticate a request by its bearer token or session cookie, or as `LOCAL_PRINCIPAL` (see there).

    Args:
        client: Client of the broker.
        settings: Whether keys are required, which hosts are this machine, and the default quotas.
        headers: The request's headers.
        cookie: The request's session cookie; None if it has none.
        keys_seen: Set once this process has seen a key.
        issuer: Identity provider whose tokens are accepted, too; None if there is none.

    Raises:
        RequestError: 401, if the request has no valid key or token of the issuer, and `LOCAL_PRINCIPAL` is not allowed;
            503, if the issuer's keys cannot be fetched.
    """
    token = _bearer_token(headers.get("authorization"))
    if token is not None and issuer is not None and key_id_of(token) is None:
        user_of_issuer = await issuer.principal_of(token)
        if user_of_issuer is not None:
            return user_of_issuer
    key, token_hash = await _read_request_key(client, token, cookie, settings.session_s)
    if key is not None:
        return principal_of(key, settings, token_hash)
    if settings.insecure and token is None:
        return LOCAL_PRINCIPAL
    is_local = settings.is_open_before_first_key and host_checks.is_from_this_machine(headers, settings)
    if is_local and not await _has_keys(client, keys_seen):
        return LOCAL_PRINCIPAL
    reason = "this service requires a key" if token is None else "the key is unknown, was revoked or has expired"
    detail = (
        f"{reason}: send it as 'Authorization: Bearer ...'; the client takes it from MASKSMITH_TOKEN, and "
        "'masksmith keys create' creates one"
    )
    raise RequestError(Code.UNAUTHORIZED, detail)


async def _read_request_key(
    client: Redis, token: str | None, cookie: str | None, session_s: float
) -> tuple[KeyInfo | None, str]:
    """Read the key of a bearer token or, without one, of a session cookie.

    Returns:
        The key, or None if there is no valid one; and the hash of the token that was sent or is in the session, or an
        empty text without either.
    """
    if token is not None:
        return await find_key(client, token), hash_token(token)
    session = await _read_session(client, cookie, session_s) if cookie else ""
    key_id, _, token_hash = session.partition(" ")
    if not key_id:
        return None, token_hash
    return await _read_valid_key(client, key_id, token_hash), token_hash


async def _read_session(client: Redis, cookie: str, session_s: float) -> str:
    """Read the session of a cookie; an empty text if it has ended.

    If more than `session_s` is left of the session, because the broker's clock was set back or the setting was reduced,
    the session is shortened to `session_s`.
    """
    name, lifetime_ms = redis_key_of_session(cookie), int(session_s) * 1000
    async with client.pipeline(transaction=False) as pipe:
        pipe.get(name)
        pipe.pttl(name)
        session, left_ms = await pipe.execute()
    if left_ms > lifetime_ms:
        await client.pexpire(name, lifetime_ms)
    return session or ""


async def _has_keys(client: Redis, keys_seen: Event) -> bool:
    """Whether this process has seen keys in the broker, now or before: if they are lost, a key is still required."""
    if not keys_seen.is_set() and await client.exists(KEYS):
        keys_seen.set()
    return keys_seen.is_set()


async def find_key(client: Redis, token: str) -> KeyInfo | None:
    """Return the key of a token; None if the token is not valid, or the key is unknown, revoked or expired."""
    key_id = key_id_of(token)
    if key_id is None:
        return None
    return await _read_valid_key(client, key_id, hash_token(token))


async def is_valid(client: Redis, principal: Principal) -> bool:
    """Whether a principal may still be served; checked again at the end of a long request and during a long response.

    A key may have been revoked, rotated or expired, and the token of an issuer may have expired. Always true for
    `LOCAL_PRINCIPAL`.
    """
    if principal.token_expires_at is not None:
        return time.time() < principal.token_expires_at
    return not principal.key or await _read_valid_key(client, principal.key, principal.token_hash) is not None


async def _read_valid_key(client: Redis, key_id: str, token_hash: str) -> KeyInfo | None:
    """Read a key; None if it is unknown, revoked or expired, or if `token_hash` is not the hash of a valid token."""
    try:
        fields = await client.hgetall(redis_key_of(key_id))
    except redis.ResponseError as error:
        if not is_wrong_type(error):
            raise
        log.error("the record of key %s cannot be read: %s", key_id, error)
        return None
    info = parse_key(key_id, fields) if hash_matches(token_hash, fields) else None
    return info if info is not None and info.is_valid else None


def _bearer_token(header: str | None) -> str | None:
    words = (header or "").split(maxsplit=1)
    return "".join(words[1:]).strip() if words and words[0].lower() == "bearer" else None


def principal_of(key: KeyInfo, settings: Settings, token_hash: str = "") -> Principal:
    """Return the principal of a key; the service's quotas apply where the key has none of its own."""
    quotas_of_key = key.model_dump(include=set(Quotas.model_fields), exclude_none=True)
    quotas = default_quotas(settings).model_copy(update=quotas_of_key)
    return Principal(key.id, key.name, key.role, quotas, frozenset(key.scopes), token_hash, key.max_priority)


def default_quotas(settings: Settings) -> Quotas:
    """The service's quotas: those of users of an issuer, and of keys that do not set their own."""
    return Quotas(
        stored_bytes=settings.key_stored_bytes, live_jobs=settings.key_live_jobs, requests_s=settings.key_requests_s
    )


async def _request_principal(request: Request) -> Principal:
    principal: Principal = request.state.principal
    return principal


async def _require_admin(principal: Annotated[Principal, Depends(_request_principal)]) -> Principal:
    if not principal.is_admin:
        raise RequestError(
            Code.FORBIDDEN, f"key {principal.name!r} has the role user; this request needs an admin's key"
        )
    return principal


PrincipalDep = Annotated[Principal, Depends(_request_principal)]
AdminDep = Annotated[Principal, Depends(_require_admin)]
