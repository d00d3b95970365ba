"""Keys: who may use a service, known by bearer tokens of which only a hash is kept.

A token holds 256 random bits. Its hash can therefore be a fast one (BLAKE3 in its key-derivation mode, so that no other
hash of ours can be passed off as it): password hashes are slow because people choose passwords that can be guessed.
Hashes are compared in constant time. Nothing of a token but its public part, the key's id, is ever stored or logged.
"""

from __future__ import annotations

import hmac
import re
import secrets
from collections.abc import Mapping
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, cast

import redis
from blake3 import blake3
from pydantic import BaseModel, Field

KEYS = "masksmith:keys"
TOKEN = re.compile(r"msk_([0-9a-f]{10})_[A-Za-z0-9_-]{43}")
HASH_CONTEXT = "masksmith 2026-11-21 hash of a bearer token"


class Role(StrEnum):
    """What a key may do: `user` sees its own jobs and uploads, `admin` those of all, workers and keys."""

    USER = "user"
    ADMIN = "admin"


class Quotas(BaseModel):
    """How much a key may use; what is None is left to the service's settings."""

    stored_bytes: int | None = Field(default=None, ge=0)
    live_jobs: int | None = Field(default=None, ge=0)
    requests_s: float | None = Field(default=None, gt=0)


class KeyInfo(Quotas):
    """A key as it may be shown: everything but its token."""

    id: str
    name: str
    role: Role
    created_at: datetime
    last_used_at: datetime | None = None
    revoked_at: datetime | None = None


class Keys:
    """Makes, lists and revokes keys.

    Args:
        client: The Redis server that the service uses, decoding its answers.
    """

    def __init__(self, client: redis.Redis) -> None:
        self._redis = client

    def create(self, name: str, role: Role = Role.USER, quotas: Quotas | None = None) -> tuple[KeyInfo, str]:
        """Make a key.

        Returns:
            The key and its token, which cannot be had again.
        """
        key = secrets.token_hex(5)
        token = f"msk_{key}_{secrets.token_urlsafe(32)}"
        limits = (quotas or Quotas()).model_dump(exclude_none=True)
        info = KeyInfo(id=key, name=name, role=role, created_at=datetime.now(UTC), **limits)
        fields = info.model_dump(mode="json", exclude={"id"}, exclude_none=True) | {"hash": hash_token(token)}
        pipe = self._redis.pipeline(transaction=True)
        pipe.hset(key_key(key), mapping=cast("dict[Any, Any]", fields))
        pipe.zadd(KEYS, {key: info.created_at.timestamp()})
        pipe.execute()
        return info, token

    def all(self) -> list[KeyInfo]:
        """List the keys, oldest first, those that were revoked included."""
        ids = cast("list[str]", self._redis.zrange(KEYS, 0, -1))
        return [key for key in map(self.get, ids) if key is not None]

    def get(self, key: str) -> KeyInfo | None:
        """Look at a key by its id."""
        return read_key(key, cast("dict[str, Any]", self._redis.hgetall(key_key(key))))

    def revoke(self, key: str) -> bool:
        """Revoke a key for good; what it made stays, and only admins see it.

        Returns:
            Whether there is such a key.
        """
        if not self._redis.exists(key_key(key)):
            return False
        self._redis.hsetnx(key_key(key), "revoked_at", datetime.now(UTC).isoformat())
        return True

    def any_made(self) -> bool:
        """Whether a key was ever made: revoking the last one opens nothing."""
        return bool(self._redis.exists(KEYS))


def key_key(key: str) -> str:
    """Name of the hash that holds a key."""
    return f"masksmith:key:{key}"


def session_key(cookie: str) -> str:
    """Name under which a browser's session holds the id of its key."""
    return f"masksmith:session:{hash_token(cookie)}"


def read_key(key: str, fields: Mapping[Any, Any]) -> KeyInfo | None:
    """Read a key's hash, or None when there is none."""
    return KeyInfo.model_validate({**fields, "id": key}) if fields else None


def key_of(token: str) -> str | None:
    """Give the id of the key that a token claims to be, or None where it has not even the form."""
    match = TOKEN.fullmatch(token)
    return match[1] if match else None


def hash_token(token: str) -> str:
    """Hash a token for storage."""
    return blake3(token.encode(), derive_key_context=HASH_CONTEXT).hexdigest()


def is_genuine(token: str, fields: Mapping[Any, Any]) -> bool:
    """Whether a token is the one that a key's hash was made of, found in constant time."""
    return hmac.compare_digest(hash_token(token), str(fields.get("hash", "")))
