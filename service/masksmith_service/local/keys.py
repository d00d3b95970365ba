"""The commands `masksmith keys`, which create, list and revoke keys."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import redis
import typer

from masksmith_service.middleware.addresses import is_loopback
from masksmith_state.keys import KeyInfo, Keys, Quotas, Role
from masksmith_wire.text import printable, without_credentials

from . import settings
from .data_directory import require_keys as require_keys_in
from .errors import FailedError, UsageError
from .options import DataOption, JsonOption, RedisOption, note
from .redis_server import installation_redis

UNITS = {"": 0, "k": 10, "m": 20, "g": 30, "t": 40}


def create(
    name: Annotated[str, typer.Argument(help="Whose key it is; for people to read.")],
    role: Annotated[str, typer.Option(help="user: own jobs only; admin: all jobs, workers and keys.")] = "user",
    stored: Annotated[
        str | None, typer.Option("--stored-bytes", metavar="N", help="Most bytes kept, such as 500G.")
    ] = None,
    live_jobs: Annotated[int | None, typer.Option(min=0, metavar="N", help="Most jobs queued or running.")] = None,
    requests_s: Annotated[float | None, typer.Option(min=0.01, metavar="N", help="Most requests a second.")] = None,
    data: DataOption = None,
    redis_url: RedisOption = None,
    as_json: JsonOption = False,
) -> None:
    """Create a key and print its token, which cannot be shown again."""
    if role not in tuple(Role):
        raise UsageError(f"--role {role!r}: user or admin")
    if not re.fullmatch(r"[\w .@+-]{1,100}", name):
        raise UsageError(f"{name!r} is not a valid name of a key: letters, digits, blanks and .@+-_ up to 100")
    stored_bytes = None if stored is None else _parse_bytes(stored)
    quotas = Quotas(stored_bytes=stored_bytes, live_jobs=live_jobs, requests_s=requests_s)
    with _open_keys(data, redis_url) as keys:
        info, token = keys.create(name, Role(role), quotas)
    if redis_url is None and (data is not None or settings.redis_url() is None):
        require_keys_in(data or settings.data_home())
    if as_json:
        _print_json(info.model_dump(mode="json") | {"token": token})
    else:
        note(f"key {info.id} ({role}) for {name}; its token is shown this once:")
        typer.echo(token)
        note("clients take it from MASKSMITH_TOKEN; from now on every request needs a key")


def list_keys(data: DataOption = None, redis_url: RedisOption = None, as_json: JsonOption = False) -> None:
    """List the keys, oldest first, without their tokens."""
    with _open_keys(data, redis_url) as keys:
        listed = keys.all()
    if as_json:
        return _print_json([key.model_dump(mode="json") for key in listed])
    rows = [("key", "name", "role", "state", "created", "last used"), *map(_row, listed)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        typer.echo(printable("  ".join(map(str.ljust, row, widths)).rstrip()))
    return None


def revoke(
    key: Annotated[str, typer.Argument(metavar="KEY", help="The key's id, as 'list' shows it.")],
    data: DataOption = None,
    redis_url: RedisOption = None,
    as_json: JsonOption = False,
) -> None:
    """Revoke a key: requests with its token are rejected. Its jobs are kept, visible to admins."""
    with _open_keys(data, redis_url) as keys:
        if not keys.revoke(key):
            raise UsageError(f"there is no key {key!r}; 'masksmith keys list' lists them")
    if as_json:
        _print_json({"id": key, "revoked": True})
    else:
        typer.echo(f"key {key} is revoked")


def require_keys(host: str, redis_url: str) -> None:
    """Check that keys exist if other machines can reach the address.

    Raises:
        UsageError: If there is no key.
    """
    if is_loopback(host):
        return
    with _open_keys(None, redis_url) as keys:
        if keys.any_exist():
            return
    raise UsageError(
        f"--host {host} is reachable from other machines, and there are no keys: create one with "
        "'masksmith keys create NAME --role admin' "
        "(and the same --data), or use --insecure to serve requests without keys"
    )


def any_exist(redis_url: str) -> bool:
    """Whether any key exists."""
    with _open_keys(None, redis_url) as keys:
        return keys.any_exist()


@contextmanager
def _open_keys(data: Path | None, redis_url: str | None) -> Iterator[Keys]:
    with installation_redis(data, redis_url) as url:
        try:
            client = redis.Redis.from_url(url, decode_responses=True, socket_connect_timeout=3)
        except ValueError as error:
            raise UsageError(f"--redis-url: {without_credentials(str(error))}") from None
        try:
            with client:
                yield Keys(client)
        except redis.RedisError as error:
            raise FailedError(f"the Redis server does not respond: {without_credentials(str(error))}") from None


def _print_json(document: Any) -> None:
    typer.echo(json.dumps(document, indent=2))


def _row(key: KeyInfo) -> Sequence[str]:
    times = [time and time.astimezone().strftime("%Y-%m-%d %H:%M") for time in (key.created_at, key.last_used_at)]
    state = "valid" if key.revoked_at is None else "revoked"
    return (key.id, key.name, key.role.value, state, times[0] or "", times[1] or "never")


def _parse_bytes(text: str) -> int:
    match = re.fullmatch(r"(\d{1,15})\s*([kmgt]?)(i?b)?", text.strip().lower())
    if match is None:
        raise UsageError(f"--stored-bytes {text!r}: a number of bytes such as 500G")
    return int(match[1]) << UNITS[match[2]]
