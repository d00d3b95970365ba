"""API keys, whose bearer tokens are stored only as hashes.

A token contains 256 random bits, so a fast hash is enough: BLAKE3 in its key-derivation mode, whose context string
makes its outputs differ from all other hashes of masksmith. (Slow password hashes protect passwords that can be
guessed.) Hashes are compared in constant time. A token contains the key's id; no other part of the token is ever stored
or logged.
"""

from __future__ import annotations

import hmac
import logging
import re
import secrets
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Annotated, Any, cast

import redis
from blake3 import blake3
from pydantic import AwareDatetime, BaseModel, Field, ValidationError
from redis.client import Pipeline

from masksmith_wire.key_bounds import MAX_REQUESTS_S, MAX_WEIGHT, MIN_REQUESTS_S, MIN_WEIGHT
from masksmith_wire.priorities import Priority

log = logging.getLogger(__name__)

KEYS = "masksmith:keys"
"""Redis key of the sorted set of the ids of all API keys, by the time of their creation."""
TOKEN = re.compile(r"msk_([0-9a-f]{10})_[A-Za-z0-9_-]{43}")
"""Form of a token; its group is the id of the key."""
DEFAULT_OVERLAP_S, MAX_OVERLAP_S = 86_400.0, 30 * 86_400.0
"""Seconds for which a token stays valid after its key got a new token: the default, and the maximum."""
_KEY_ID = re.compile(r"[0-9a-f]{10}")
MAX_SESSIONS = 100
"""Limit of the browser sessions of a key; a further session ends the oldest one."""
HASH_CONTEXT = "masksmith 2026-11-21 hash of a bearer token"


class Role(StrEnum):
    """What a key may access: a `user` its own jobs and uploads; an `admin` those of all keys, workers and the keys."""

    USER = "user"
    ADMIN = "admin"


class Scope(StrEnum):
    """What a key may do; a key has one or more of these.

    `submit`: send and delete uploads; start masks jobs; cancel and delete jobs. `read`: read jobs and their results.
    `benchmark`: start benchmarks, during which mask searches on their device wait; cancel and delete jobs.
    `administer`: list workers, read metrics, and list, create, rotate and revoke keys; it goes with the role `admin`.
    This role extends the other scopes to the jobs and uploads of all keys.
    """

    SUBMIT = "submit"
    READ = "read"
    BENCHMARK = "benchmark"
    ADMINISTER = "administer"


SCOPES_OF_ROLE = {Role.USER: (Scope.SUBMIT, Scope.READ, Scope.BENCHMARK), Role.ADMIN: tuple(Scope)}
"""Scopes of a key that is created without a list of scopes, and of a stored key whose record has no list."""


def check_scopes(role: Role, scopes: Sequence[Scope]) -> None:
    """Check that a role allows a set of scopes.

    Raises:
        ValueError: If the set is empty, contains `administer` for another role than `admin`, or lacks it for `admin`.
    """
    if not scopes:
        raise ValueError("a key needs at least one scope")
    if (role is Role.ADMIN) != (Scope.ADMINISTER in scopes):
        raise ValueError("the scope administer and the role admin go together")


class Quotas(BaseModel):
    """Limits of a key; where one is None, the limit from the service's settings applies."""

    stored_bytes: int | None = Field(default=None, ge=0)
    live_jobs: int | None = Field(default=None, ge=0)
    requests_s: float | None = Field(default=None, ge=MIN_REQUESTS_S, le=MAX_REQUESTS_S)


class Sharing(BaseModel):
    """How a key shares the workers with other keys.

    While two keys have queued shards, a key of weight 3 gets three times as much time of the workers as a key of weight
    1. `max_priority` is the highest priority that its jobs may have; priorities order the jobs of one key.
    """

    weight: Annotated[float, Field(ge=MIN_WEIGHT, le=MAX_WEIGHT)] = 1.0
    max_priority: Priority = Priority.INTERACTIVE


class KeyInfo(Quotas, Sharing):
    """The public fields of a key, without its token."""

    id: str
    name: str
    role: Role
    created_at: AwareDatetime
    last_used_at: AwareDatetime | None = None
    revoked_at: AwareDatetime | None = None
    expires_at: AwareDatetime | None = None
    scopes: list[Scope]

    @property
    def is_valid(self) -> bool:
        """Whether the key is neither revoked nor expired."""
        return self.revoked_at is None and (self.expires_at is None or datetime.now(UTC) < self.expires_at)


class Keys:
    """Creates, lists, rotates and revokes keys.

    Args:
        client: Client of the service's Redis server, with `decode_responses`.
    """

    def __init__(self, client: redis.Redis) -> None:
        self._redis = client

    def create(
        self,
        name: str,
        role: Role = Role.USER,
        quotas: Quotas | None = None,
        scopes: Sequence[Scope] | None = None,
        expires_at: datetime | None = None,
        sharing: Sharing | None = None,
    ) -> tuple[KeyInfo, str]:
        """Create a key; by default it has all scopes of its role, and does not expire.

        Returns:
            The key and its token, which cannot be retrieved later.

        Raises:
            ValueError: If there are no scopes, or they do not go with the role; see `check_scopes`.
        """
        key = secrets.token_hex(5)
        token = _new_token(key)
        limits = (quotas or Quotas()).model_dump(exclude_none=True) | (sharing or Sharing()).model_dump()
        granted_scopes = sorted(set(SCOPES_OF_ROLE[role] if scopes is None else scopes))
        check_scopes(role, granted_scopes)
        info = KeyInfo(
            id=key,
            name=name,
            role=role,
            created_at=datetime.now(UTC),
            expires_at=expires_at,
            scopes=granted_scopes,
            **limits,
        )
        fields = info.model_dump(mode="json", exclude={"id", "scopes"}, exclude_none=True)
        fields |= {"hash": hash_token(token), "scopes": " ".join(granted_scopes)}
        pipe = self._redis.pipeline(transaction=True)
        pipe.hset(redis_key_of(key), mapping=cast("dict[Any, Any]", fields))
        pipe.zadd(KEYS, {key: info.created_at.timestamp()})
        pipe.execute()
        return info, token

    def all(self) -> list[KeyInfo]:
        """List all keys whose records can be read, revoked and expired ones included, oldest first."""
        ids = cast("list[str]", self._redis.zrange(KEYS, 0, -1))
        return [info for info in map(self.get, ids) if info is not None]

    def get(self, key: str) -> KeyInfo | None:
        """Read a key by its id; None if there is no such key, or its record cannot be read."""
        if not is_key_id(key):
            return None
        try:
            fields = cast("dict[str, Any]", self._redis.hgetall(redis_key_of(key)))
        except redis.ResponseError as error:
            if not is_wrong_type(error):
                raise
            log.error("the record of key %s cannot be read: %s", key, error)
            return None
        return parse_key(key, fields)

    def rotate(self, key: str, overlap_s: float, expires_at: datetime | None = None) -> tuple[KeyInfo, str] | None:
        """Give a key a new token; the present token stays valid for a time; any earlier token becomes invalid.

        If the key has expired, the present token stays invalid, whatever the overlap.

        Args:
            key: Id of the key; the key keeps its id, jobs, uploads and quotas.
            overlap_s: Seconds for which the present token of a valid key stays valid.
            expires_at: New time at which the key expires; by default that time does not change.

        Returns:
            The key and its new token; None if there is no such key, its record cannot be read, it is revoked, or it has
            expired and gets no new time.
        """
        if not is_key_id(key):
            return None
        token = _new_token(key)

        def replace_token(pipeline: Pipeline) -> None:
            info = self.get(key)
            if info is None or info.revoked_at is not None or not (info.is_valid or expires_at):
                return
            present_hash = str(self._redis.hget(redis_key_of(key), "hash") or "")
            until = datetime.now(UTC) + timedelta(seconds=overlap_s if info.is_valid else 0.0)
            fields = {"hash": hash_token(token), "old_hash": present_hash, "old_until": until.isoformat()}
            if expires_at is not None:
                fields["expires_at"] = expires_at.isoformat()
            pipeline.multi()
            pipeline.hset(redis_key_of(key), mapping=cast("dict[Any, Any]", fields))

        # If the key's record changes between reading and writing, `transaction` calls the function again: otherwise the
        # new token of another rotation at the same time would be overwritten, and would never be valid.
        is_replaced = bool(self._redis.transaction(replace_token, redis_key_of(key)))
        info = self.get(key) if is_replaced else None
        return None if info is None else (info, token)

    def revoke(self, key: str) -> bool:
        """Revoke a key permanently. Its jobs, uploads and results are kept, visible to admins only.

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
    """Whether a text has the form of the id of an API key; no other text may become part of a Redis key."""
    return _KEY_ID.fullmatch(text) is not None


def is_wrong_type(error: redis.ResponseError) -> bool:
    """Whether Redis refused a command because the value at a Redis key has another type than the command needs."""
    return str(error).startswith("WRONGTYPE")


def redis_key_of(key: str) -> str:
    """Redis key of the hash with the fields of an API key."""
    return f"masksmith:key:{key}"


def redis_key_of_session(session_token: str) -> str:
    """Redis key of a browser session; the value has its API key's id, and the hash of the token that began it."""
    return f"masksmith:session:{hash_token(session_token)}"


def redis_key_of_session_list(key: str) -> str:
    """Redis key of the sorted set of an API key's sessions, by the time of their end."""
    return f"masksmith:sessions:{key}"


def parse_key(key: str, fields: Mapping[Any, Any]) -> KeyInfo | None:
    """Parse the fields of a key's record; None if there are none, or they cannot be read: then the key is not valid."""
    if not fields:
        return None
    try:
        role = Role(fields.get("role", ""))
        scopes = fields["scopes"].split() if "scopes" in fields else SCOPES_OF_ROLE[role]
        return KeyInfo.model_validate({**fields, "id": key, "scopes": scopes})
    except ValueError as error:
        # The text of a ValidationError contains values of the record, one of which may be a token's hash.
        reason = f"{error.error_count()} invalid field(s)" if isinstance(error, ValidationError) else "no such role"
        log.error("the record of key %s cannot be read: %s", key, reason)
        return None


def key_id_of(token: str) -> str | None:
    """Id of the key that a token names, without checking the token; None if the token is malformed."""
    match = TOKEN.fullmatch(token)
    return match[1] if match else None


def hash_token(token: str) -> str:
    """Hash a token for storage."""
    return blake3(token.encode(), derive_key_context=HASH_CONTEXT).hexdigest()


def hash_matches(token_hash: str, fields: Mapping[Any, Any]) -> bool:
    """Whether a hash is that of a key's present token, or of its previous token while that still stays valid.

    Hashes are compared in constant time. The caller checks whether the key is revoked or expired.
    """
    matches_present = _are_equal(token_hash, fields.get("hash"))
    matches_old = _are_equal(token_hash, fields.get("old_hash"))
    return matches_present or (matches_old and _is_in_future(str(fields.get("old_until", ""))))


def _are_equal(token_hash: str, stored_hash: object) -> bool:
    """Compare hashes in constant time; texts are encoded, since the record of a key may be damaged and not be ASCII."""
    return hmac.compare_digest(token_hash.encode(), str(stored_hash or "").encode())


def _is_in_future(text: str) -> bool:
    try:
        return datetime.now(UTC) < datetime.fromisoformat(text)
    except (ValueError, TypeError):
        return False


def _new_token(key: str) -> str:
    return f"msk_{key}_{secrets.token_urlsafe(32)}"
