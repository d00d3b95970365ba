"""Access to the keys of an installation, in its Redis server."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import redis

from masksmith_service.middleware.addresses import is_loopback
from masksmith_state.decoding import DECODING
from masksmith_state.keys import Keys
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
            client = redis.Redis.from_url(url, **DECODING, socket_connect_timeout=3)
        except ValueError as error:
            raise UsageError(f"--redis-url: {without_credentials(str(error))}") from None
        try:
            with client:
                yield Keys(client)
        except redis.RedisError as error:
            raise FailedError(f"the Redis server does not respond: {without_credentials(str(error))}") from None


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
