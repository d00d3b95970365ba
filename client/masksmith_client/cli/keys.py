"""`masksmith keys`: who may use an installation."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from masksmith_client._errors import ClientError, InputError
from masksmith_service.middleware.addresses import is_loopback

from . import parts, settings
from .broker import reached
from .console import JsonOption, emit, note, show_table

if TYPE_CHECKING:
    from masksmith_state.keys import KeyInfo, Keys

UNITS = {"": 0, "k": 10, "m": 20, "g": 30, "t": 40}

DataOption = Annotated[
    Path | None, typer.Option("--data", metavar="DIR", help="Data directory of 'masksmith up'; as there unless given.")
]


def create(
    name: Annotated[str, typer.Argument(help="Whose key it is; for people to read.")],
    role: Annotated[str, typer.Option(help="user: own jobs only; admin: all jobs, workers and keys.")] = "user",
    stored: Annotated[
        str | None, typer.Option("--stored-bytes", metavar="N", help="Most bytes kept, such as 500G.")
    ] = None,
    live_jobs: Annotated[int | None, typer.Option(min=0, metavar="N", help="Most jobs queued or running.")] = None,
    requests_s: Annotated[float | None, typer.Option(min=0.01, metavar="N", help="Most requests a second.")] = None,
    data: DataOption = None,
    redis_url: parts.RedisOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a key and print its token, which cannot be shown again."""
    if role not in ("user", "admin"):
        raise InputError(f"--role {role!r}: user or admin")
    if not re.fullmatch(r"[\w .@+-]{1,100}", name):
        raise InputError(f"{name!r} can be no key's name: letters, digits, blanks and .@+-_ up to 100")
    stored_bytes = None if stored is None else _bytes(stored)
    with _keys(data, redis_url) as keys:
        from masksmith_state.keys import Quotas, Role

        quotas = Quotas(stored_bytes=stored_bytes, live_jobs=live_jobs, requests_s=requests_s)
        info, token = keys.create(name, Role(role), quotas)
    if as_json:
        return emit(info.model_dump(mode="json") | {"token": token})
    note(f"key {info.id} ({role}) for {name}; its token is shown this once:")
    print(token)
    note("clients take it from MASKSMITH_TOKEN; from now on every request needs a key")
    return None


def list_keys(data: DataOption = None, redis_url: parts.RedisOption = None, as_json: JsonOption = False) -> None:
    """List the keys, oldest first; no token is among it."""
    with _keys(data, redis_url) as keys:
        found = keys.all()
    if as_json:
        return emit([key.model_dump(mode="json") for key in found])
    show_table(("key", "name", "role", "state", "created", "last used"), [_row(key) for key in found], left=6)
    return None


def revoke(
    key: Annotated[str, typer.Argument(metavar="KEY", help="The key's id, as 'list' shows it.")],
    data: DataOption = None,
    redis_url: parts.RedisOption = None,
    as_json: JsonOption = False,
) -> None:
    """Revoke a key: what carries it is refused from now on. Its jobs stay, for admins to see."""
    with _keys(data, redis_url) as keys:
        if not keys.revoke(key):
            raise InputError(f"there is no key {key!r}; 'masksmith keys list' lists them")
    if as_json:
        return emit({"id": key, "revoked": True})
    print(f"key {key} is revoked")
    return None


def refuse_strangers(host: str, redis_url: str) -> None:
    """Make sure that whoever can reach an address needs a key there.

    Raises:
        InputError: If there is none yet, with what to do.
    """
    if is_loopback(host) or settings.is_insecure():
        return
    with _keys(None, redis_url) as keys:
        if keys.any_made():
            return
    raise InputError(
        f"--host {host} lets others in, and there are no keys: make one with 'masksmith keys create NAME --role admin' "
        "(and the same --data), or say --insecure to ask nobody"
    )


@contextmanager
def _keys(data: Path | None, redis_url: str | None) -> Iterator[Keys]:
    parts.check_installed("service")
    import redis

    from masksmith_state.keys import Keys

    with reached(data, redis_url) as url:
        try:
            client = redis.Redis.from_url(url, decode_responses=True, socket_connect_timeout=3)
        except ValueError as error:
            raise InputError(f"--redis-url: {error}") from None
        try:
            with client:
                yield Keys(client)
        except redis.RedisError as error:
            raise ClientError(f"the Redis server does not answer: {error}") from None


def _row(key: KeyInfo) -> tuple[str, ...]:
    times = [time and time.astimezone().strftime("%Y-%m-%d %H:%M") for time in (key.created_at, key.last_used_at)]
    state = "valid" if key.revoked_at is None else "revoked"
    return (key.id, key.name, key.role.value, state, times[0] or "", times[1] or "never")


def _bytes(text: str) -> int:
    found = re.fullmatch(r"(\d{1,15})\s*([kmgt]?)(i?b)?", text.strip().lower())
    if found is None:
        raise InputError(f"--stored-bytes {text!r}: a number of bytes such as 500G")
    return int(found[1]) << UNITS[found[2]]
