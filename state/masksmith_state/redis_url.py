"""Checks the URL of the Redis server for what redis-py or Celery would silently ignore, or read in different ways."""

from __future__ import annotations

import re
from urllib.parse import SplitResult, parse_qsl, urlsplit

import redis

_DATABASE = re.compile("[0-9]{1,9}")


def check_redis_url(url: str) -> None:
    """Check a Redis URL: `redis://`, `rediss://` or `unix://`, with a database that is a number, or none.

    redis-py and Celery read other URLs in different ways. If the database is no number, redis-py uses database 0. If an
    option is given twice, redis-py uses the first value, and Celery the last one. Celery fails for most options.

    Raises:
        ValueError: If a part of the URL is malformed, or would be ignored; the message does not contain the URL, and
            begins with a verb: the caller puts the name of the setting before it.
    """
    if "#" in url:
        raise ValueError("has a fragment (#...), which would be ignored; write # in a password as %23")
    parts = urlsplit(url)
    _check_port(parts)
    redis.Redis.from_url(url).close()  # Raises ValueError for what redis-py refuses; it does not connect.
    has_password = parts.password is not None or "password" in dict(parse_qsl(parts.query))
    if parts.username and not has_password:
        raise ValueError(
            f"has a user without a password; write {parts.scheme}://user:password@... or {parts.scheme}://:password@..."
        )
    if parts.scheme == "unix":
        _check_options(parts)
        if parts.hostname or not parts.path.strip("/"):
            raise ValueError("must have the absolute path of a socket, such as unix:///run/valkey.sock?db=0")
        return
    if "@" in parts.path + parts.query:
        raise ValueError("has an @ after the host; write / and ? in a password as %2F and %3F, and @ as %40")
    if parts.path not in ("", "/") and not _DATABASE.fullmatch(parts.path[1:]):
        raise ValueError(f"has the database {parts.path[1:]!r}, which is no number: write /0, /1 and so on")
    _check_options(parts)


def _check_port(parts: SplitResult) -> None:
    """Check the port; the message does not contain it, since it may be the beginning of a password.

    In `redis://:pass/word@host`, where `/` is not escaped, the text before `/` is read as host and port.
    """
    try:
        is_valid = parts.port != 0
    except ValueError:
        is_valid = False
    if not is_valid:
        raise ValueError("has a port that is no number from 1 to 65535; write / in a password as %2F, and : as %3A")


def _check_options(parts: SplitResult) -> None:
    """Check that each option after `?` is allowed, and is given once.

    Allowed are `_SOCKET_OPTIONS` for a unix socket, and `ssl_...` with TLS.
    """
    options = parse_qsl(parts.query, keep_blank_values=True)
    names = [name for name, _ in options]
    for name, value in options:
        if names.count(name) > 1:
            raise ValueError(f"has the option {name!r} twice")
        if parts.scheme == "unix" and name in _SOCKET_OPTIONS:
            if name == "db" and not _DATABASE.fullmatch(value):
                raise ValueError(f"has the database {value!r}, which is no number: write ?db=0, ?db=1 and so on")
        elif parts.scheme != "rediss" or not name.startswith("ssl_"):
            raise ValueError(f"has the option {name!r}, which is not supported: {_ADVICE[parts.scheme]}")


_SOCKET_OPTIONS = ("db", "username", "password")
_ADVICE = {
    "redis": "the database follows the port, as in redis://host:6379/1",
    "rediss": "options begin with ssl_; the database follows the port, as in rediss://host:6379/1",
    "unix": f"the options are {', '.join(_SOCKET_OPTIONS)}",
}
