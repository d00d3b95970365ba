"""Access to the keys of an installation, in its Redis server."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import redis

from masksmith_service.middleware.addresses import is_loopback
from masksmith_state.decoding import DECODING
from masksmith_state.keys import Keys
from masksmith_state.redis_url import check_redis_url
from masksmith_wire.text import without_credentials

from .errors import FailedError, UsageError
from .redis_server import installation_redis


@contextmanager
def open_keys(data: Path | None, redis_url: str | None, *, create: bool = False) -> Iterator[Keys]:
    """Yield the keys of an installation; see `installation_redis`.

    Raises:
        UsageError: If the URL is invalid, or `installation_redis` raises it.
        FailedError: If a command in the block fails, or `installation_redis` raises it.
    """
    with installation_redis(data, redis_url, create=create) as url:
        try:
            check_redis_url(url)
        except ValueError as error:
            raise UsageError(f"--redis-url (MASKSMITH_REDIS_URL): {without_credentials(str(error))}") from None
        client = redis.Redis.from_url(url, **DECODING, socket_connect_timeout=3)
        try:
            with client:
                yield Keys(client)
        except redis.RedisError as error:
            raise FailedError(f"the Redis server {_failure(error)}: {without_credentials(str(error))}") from None


_DENIED = "refuses the user or password of its URL; correct the URL (--redis-url or MASKSMITH_REDIS_URL)"
_FAILURES: tuple[tuple[type[redis.RedisError], str], ...] = (
    (redis.exceptions.AuthenticationError, _DENIED),
    (redis.exceptions.AuthorizationError, _DENIED),
    (redis.exceptions.AuthenticationWrongNumberOfArgsError, _DENIED),
    (redis.exceptions.NoPermissionError, "does not allow its user this command; give the user more rights (ACL)"),
    (redis.exceptions.OutOfMemoryError, "is full; delete jobs, or increase its maxmemory"),
    (redis.exceptions.ReadOnlyError, "is a read-only replica; name the primary"),
    (redis.exceptions.BusyLoadingError, "is loading its data; try again shortly"),
    (redis.ConnectionError, "does not respond"),
    (redis.TimeoutError, "does not respond"),
    (redis.ResponseError, "refuses a command; its database may be that of another program, or a record is damaged"),
)
"""What the server does, by the kind of error; the first row whose kind matches is used."""


def _failure(error: redis.RedisError) -> str:
    return next((text for kind, text in _FAILURES if isinstance(error, kind)), "cannot be used")


def check_key_exists(host: str, redis_url: str) -> None:
    """Check that a key exists, if the address can be reached from other machines.

    Raises:
        UsageError: If the address can be reached, and there is no key.
    """
    if is_loopback(host):
        return
    with open_keys(None, redis_url) as keys:
        if keys.any_exist():
            return
    raise UsageError(
        f"--host {host} is reachable from other machines, and there are no keys: create one with "
        "'masksmith keys create NAME --role admin' "
        "(and the same --data), or use --insecure to serve requests without keys"
    )


def any_key_exists(redis_url: str) -> bool:
    """Whether any key exists, revoked ones included."""
    with open_keys(None, redis_url) as keys:
        return keys.any_exist()
