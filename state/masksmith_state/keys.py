"""API keys, whose bearer tokens are stored only as hashes.

A token holds 256 random bits, so a fast hash is enough: BLAKE3 in its key-derivation mode, whose context string keeps
its outputs apart from all other hashes here. Slow password hashes protect passwords that can be guessed. Hashes are
compared in constant time. Only the public part of a token, the key's id, is ever stored or logged.
"""

from __future__ import annotations

import hmac
import logging
import re
import secrets
from collections.abc import Mapping
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, cast

import redis
from blake3 import blake3
from pydantic import BaseModel, Field, ValidationError

log = logging.getLogger(__name__)

KEYS = "masksmith:keys"
TOKEN = re.compile(r"msk_([0-9a-f]{10})_[A-Za-z0-9_-]{43}")
_KEY_ID = re.compile(r"[0-9a-f]{10}")
HASH_CONTEXT = "masksmith 2026-11-21 hash of a bearer token"


class Role(StrEnum):
    """Permissions of a key: `user` has access to its own jobs and uploads, `admin` to all of them, workers and keys."""

    USER = "user"
    ADMIN = "admin"


class Quotas(BaseModel):
    """Limits of a key; None applies the limit from the service's settings."""

    stored_bytes: int | None = Field(default=None, ge=0)
    live_jobs: int | None = Field(default=None, ge=0)
    requests_s: float | None = Field(default=None, gt=0)


class KeyInfo(Quotas):
    """The public fields of a key, without its token."""

    id: str
    name: str
    role: Role
    created_at: datetime
    last_used_at: datetime | None = None
    revoked_at: datetime | None = None


class Keys:
    """Creates, lists and revokes keys.

    Args:
        client: Client of the service's Redis server, with `decode_responses`.
    """

    def __init__(self, client: redis.Redis) -> None:
        self._redis = client

    def create(self, name: str, role: Role = Role.USER, quotas: Quotas | None = None) -> tuple[KeyInfo, str]:
        """Create a key.

        Returns:
            The key and its token, which cannot be retrieved later.
        """
        key = secrets.token_hex(5)
        token = f"msk_{key}_{secrets.token_urlsafe(32)}"
        limits = (quotas or Quotas()).model_dump(exclude_none=True)
        info = KeyInfo(id=key, name=name, role=role, created_at=datetime.now(UTC), **limits)
        fields = info.model_dump(mode="json", exclude={"id"}, exclude_none=True) | {"hash": hash_token(token)}
        pipe = self._redis.pipeline(transaction=True)
        pipe.hset(redis_key_of(key), mapping=cast("dict[Any, Any]", fields))
        pipe.zadd(KEYS, {key: info.created_at.timestamp()})
        pipe.execute()
        return info, token

    def all(self) -> list[KeyInfo]:
        """List all keys, revoked ones included, oldest first."""
        ids = cast("list[str]", self._redis.zrange(KEYS, 0, -1))
        return [key for key in map(self.get, ids) if key is not None]

    def get(self, key: str) -> KeyInfo | None:
        """Read a key by its id; None if there is no such key, or its record cannot be read."""
        if not is_key_id(key):
            return None
        return parse_key(key, cast("dict[str, Any]", self._redis.hgetall(redis_key_of(key))))

    def revoke(self, key: str) -> bool:
        """Revoke a key permanently. Its jobs and results are kept, visible to admins only.

        Returns:
            Whether the key exists.
        """
        if not is_key_id(key) or not self._redis.exists(redis_key_of(key)):
            return False
        self._redis.hsetnx(redis_key_of(key), "revoked_at", datetime.now(UTC).isoformat())
        return True

    def any_exist(self) -> bool:
        """Whether any key exists, revoked ones included: revoking the last key must not disable authentication."""
        return bool(self._redis.exists(KEYS))


def is_key_id(text: str) -> bool:
    """Whether a text can be the id of a key; others must not become part of a key of Redis."""
    return _KEY_ID.fullmatch(text) is not None


def redis_key_of(key: str) -> str:
    """Redis key of the hash that holds an API key."""
    return f"masksmith:key:{key}"


def session_key(cookie: str) -> str:
    """Redis key of a browser session, whose value is the id of the session's API key."""
    return f"masksmith:session:{hash_token(cookie)}"


def parse_key(key: str, fields: Mapping[Any, Any]) -> KeyInfo | None:
    """Parse the Redis hash of a key; None if it is empty, or cannot be read: then the key is not valid."""
    if not fields:
        return None
    try:
        return KeyInfo.model_validate({**fields, "id": key})
    except ValidationError as error:
        log.error("the record of key %s cannot be read: %d invalid field(s)", key, error.error_count())
        return None


def key_id_of(token: str) -> str | None:
    """Id of the key that a token belongs to, not yet verified; None if the token is malformed."""
    match = TOKEN.fullmatch(token)
    return match[1] if match else None


def hash_token(token: str) -> str:
    """Hash a token for storage."""
    return blake3(token.encode(), derive_key_context=HASH_CONTEXT).hexdigest()


def token_matches(token: str, fields: Mapping[Any, Any]) -> bool:
    """Whether a token matches the hash stored for a key; compares in constant time."""
    return hmac.compare_digest(hash_token(token), str(fields.get("hash", "")))
