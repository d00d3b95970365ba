"""The commands `masksmith keys`, which create, list, rotate and revoke keys."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import redis
import typer

from masksmith_service.middleware.addresses import is_loopback
from masksmith_state.decoding import DECODING
from masksmith_state.keys import (
    MAX_OVERLAP_S,
    SCOPES_OF_ROLE,
    KeyInfo,
    Keys,
    Quotas,
    Role,
    Scope,
    Sharing,
    check_scopes,
)
from masksmith_wire.priorities import Priority
from masksmith_wire.text import printable, without_credentials

from . import settings
from .data_directory import require_keys
from .errors import FailedError, UsageError
from .options import DataOption, JsonOption, RedisOption, note
from .redis_server import installation_redis

UNITS = {"": 0, "k": 10, "m": 20, "g": 30, "t": 40}
"""Powers of two of the units of bytes."""
SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}
ExpiresOption = Annotated[
    str | None,
    typer.Option("--expires", metavar="TIME", help="When the key expires: 90d, 12h, or a date such as 2027-01-31."),
]


def create(
    name: Annotated[str, typer.Argument(help="Name of the key, such as that of its owner.")],
    role: Annotated[str, typer.Option(help="user: own jobs only; admin: all jobs, workers and keys.")] = "user",
    stored_bytes_text: Annotated[
        str | None,
        typer.Option("--stored-bytes", metavar="N", help="Most bytes of uploads and results, such as 500G."),
    ] = None,
    live_jobs: Annotated[int | None, typer.Option(min=0, metavar="N", help="Most jobs queued or running.")] = None,
    requests_s: Annotated[float | None, typer.Option(min=0.01, metavar="N", help="Most requests a second.")] = None,
    scope: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SCOPE", help="submit, read, benchmark or administer; repeatable. Default: all of its role."
        ),
    ] = None,
    weight: Annotated[
        float,
        typer.Option(min=0.01, max=1000, metavar="N", help="Share of the workers, relative to a key of weight 1."),
    ] = 1.0,
    max_priority: Annotated[
        str, typer.Option(metavar="WORD", help="Highest priority of its jobs: interactive, normal or batch.")
    ] = "interactive",
    expires: ExpiresOption = None,
    data: DataOption = None,
    redis_url: RedisOption = None,
    as_json: JsonOption = False,
) -> None:
    """Create a key and print its token, which cannot be shown again."""
    if role not in tuple(Role):
        raise UsageError(f"--role {role!r}: user or admin")
    if max_priority not in tuple(Priority):
        raise UsageError(f"--max-priority {max_priority!r}: {', '.join(Priority)}")
    if not re.fullmatch(r"[\w .@+-]{1,100}", name):
        raise UsageError(f"{name!r} is not a valid name of a key: letters, digits, blanks and .@+-_ up to 100")
    stored_bytes = None if stored_bytes_text is None else _parse_bytes(stored_bytes_text)
    quotas = Quotas(stored_bytes=stored_bytes, live_jobs=live_jobs, requests_s=requests_s)
    scopes, expires_at = _parse_scopes(role, scope), _parse_expiry(expires)
    with _open_keys(data, redis_url) as keys:
        sharing = Sharing(weight=weight, max_priority=Priority(max_priority))
        info, token = keys.create(name, Role(role), quotas, scopes, expires_at, sharing)
    if redis_url is None and (data is not None or settings.redis_url() is None):
        require_keys(data or settings.data_home())
    _print_token(
        info, token, "clients take it from MASKSMITH_TOKEN; from now on every request needs a key", as_json=as_json
    )


def rotate(
    key: Annotated[str, typer.Argument(metavar="KEY", help="The key's id, as 'list' shows it.")],
    overlap: Annotated[
        str, typer.Option(metavar="TIME", help="How long the old token stays valid, such as 12h; 0s: not at all.")
    ] = "24h",
    expires: ExpiresOption = None,
    data: DataOption = None,
    redis_url: RedisOption = None,
    as_json: JsonOption = False,
) -> None:
    """Replace a key's token and print the new one; the old one stays valid for a time. Jobs and quotas stay."""
    overlap_s, expires_at = _parse_duration("--overlap", overlap), _parse_expiry(expires)
    if overlap_s > MAX_OVERLAP_S:
        raise UsageError(f"--overlap {overlap!r}: at most {MAX_OVERLAP_S / SECONDS['d']:g}d")
    with _open_keys(data, redis_url) as keys:
        rotated = keys.rotate(key, overlap_s, expires_at)
    if rotated is None:
        raise UsageError(f"there is no valid key {key!r}; 'masksmith keys list' lists them")
    _print_token(*rotated, f"the old token is valid for another {overlap}", as_json=as_json)


def list_keys(data: DataOption = None, redis_url: RedisOption = None, as_json: JsonOption = False) -> None:
    """List the keys, oldest first, without their tokens."""
    with _open_keys(data, redis_url) as keys:
        listed = keys.all()
    if as_json:
        return _print_json([key.model_dump(mode="json") for key in listed])
    headings = ("key", "name", "role", "scopes", "weight", "priority", "state", "created", "expires", "last used")
    rows = [headings, *map(_row, listed)]
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


def check_key_exists(host: str, redis_url: str) -> None:
    """Check that a key exists, if the address can be reached from other machines.

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
            client = redis.Redis.from_url(url, **DECODING, socket_connect_timeout=3)
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
    """Texts of a key's row in the list, one for each heading."""
    has_all_scopes = set(key.scopes) == set(SCOPES_OF_ROLE[key.role])
    return (
        key.id,
        key.name,
        key.role.value,
        "all" if has_all_scopes else ",".join(key.scopes),
        f"{key.weight:g}",
        key.max_priority.value,
        _state(key),
        _time_text(key.created_at, ""),
        _time_text(key.expires_at, "never"),
        _time_text(key.last_used_at, "never"),
    )


def _state(key: KeyInfo) -> str:
    if key.revoked_at is not None:
        return "revoked"
    return "valid" if key.is_valid else "expired"


def _time_text(moment: datetime | None, absent: str) -> str:
    """Text of a moment in local time, to the minute; `absent` for None."""
    return absent if moment is None else moment.astimezone().strftime("%Y-%m-%d %H:%M")


def _print_token(info: KeyInfo, token: str, remark: str, *, as_json: bool) -> None:
    if as_json:
        _print_json(info.model_dump(mode="json") | {"token": token})
        return
    note(f"key {info.id} ({info.role}) for {info.name}; its token is shown this once:")
    typer.echo(token)
    note(remark)


def _parse_scopes(role: str, texts: list[str] | None) -> list[Scope] | None:
    if not texts:
        return None
    names = [name.strip() for text in texts for name in text.split(",")]
    try:
        scopes = [Scope(name) for name in names]
        check_scopes(Role(role), scopes)
    except ValueError as error:
        raise UsageError(f"--scope {','.join(names)!r} with --role {role}: {error}") from None
    return scopes


def _parse_expiry(text: str | None) -> datetime | None:
    if text is None:
        return None
    if re.fullmatch(r"\d{4}-\d{2}-\d{2}.*", text):
        try:
            moment = datetime.fromisoformat(text).astimezone(UTC)
        except (ValueError, OverflowError):
            raise UsageError(f"--expires {text!r}: a time such as 90d or 12h, or a date such as 2027-01-31") from None
    else:
        moment = datetime.now(UTC) + timedelta(seconds=_parse_duration("--expires", text))
    if moment <= datetime.now(UTC):
        raise UsageError(f"--expires {text!r} is in the past")
    return moment


def _parse_duration(option: str, text: str) -> float:
    match = re.fullmatch(r"(\d{1,6})([smhdw])", text.strip().lower())
    if match is None:
        raise UsageError(f"{option} {text!r}: a time such as 90d, 12h or 30m")
    return float(match[1]) * SECONDS[match[2]]


def _parse_bytes(text: str) -> int:
    match = re.fullmatch(r"(\d{1,15})\s*([kmgt]?)(i?b)?", text.strip().lower())
    if match is None:
        raise UsageError(f"--stored-bytes {text!r}: a number of bytes such as 500G")
    return int(match[1]) << UNITS[match[2]]
