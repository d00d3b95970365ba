"""The commands `masksmith keys`, which create, list, rotate and revoke keys.

Modules that access keys are imported in functions, so that the help of a command does not import a client of Redis.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from masksmith_wire.key_bounds import MAX_REQUESTS_S, MAX_WEIGHT, MIN_REQUESTS_S, MIN_WEIGHT
from masksmith_wire.priorities import Priority
from masksmith_wire.text import printable

from . import settings
from .data_directory import record_key_requirement
from .errors import UsageError
from .options import DataOption, JsonOption, RedisOption, note

if TYPE_CHECKING:
    from masksmith_state.keys import KeyInfo, Scope

UNITS = {"": 0, "k": 10, "m": 20, "g": 30, "t": 40}
"""Exponent of two of each unit of bytes."""
SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}
"""Number of seconds of each unit of time."""
MAX_EXPIRY_DAYS = 36_500
ExpiresOption = Annotated[
    str | None,
    typer.Option("--expires", metavar="TIME", help="When the key expires: 90d, 12h, or a date such as 2027-01-31."),
]


def create(
    name: Annotated[str, typer.Argument(help="Name of the key, such as that of its owner.")],
    role: Annotated[str, typer.Option(help="user: own jobs only; admin: all jobs, workers and keys.")] = "user",
    stored_bytes_text: Annotated[
        str | None,
        typer.Option("--stored-bytes", metavar="N", help="Maximum bytes of uploads and results, such as 500G."),
    ] = None,
    live_jobs: Annotated[
        int | None, typer.Option(min=0, metavar="N", help="Maximum number of jobs queued or running.")
    ] = None,
    requests_s: Annotated[
        float | None,
        typer.Option(min=MIN_REQUESTS_S, max=MAX_REQUESTS_S, metavar="N", help="Maximum requests a second."),
    ] = None,
    scope: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SCOPE", help="submit, read, benchmark or administer; repeatable. Default: all of its role."
        ),
    ] = None,
    weight: Annotated[
        float,
        typer.Option(
            min=MIN_WEIGHT, max=MAX_WEIGHT, metavar="N", help="Share of the workers, relative to a key of weight 1."
        ),
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
    from masksmith_state.keys import Quotas, Role, Sharing

    from .key_access import open_keys

    if role not in tuple(Role):
        raise UsageError(f"--role {role!r}: user or admin")
    if max_priority not in tuple(Priority):
        raise UsageError(f"--max-priority {max_priority!r}: {', '.join(Priority)}")
    if not re.fullmatch(r"[\w .@+-]{1,100}", name):
        raise UsageError(f"{name!r} is not a valid name of a key: letters, digits, blanks and .@+-_ up to 100")
    stored_bytes = None if stored_bytes_text is None else _parse_bytes(stored_bytes_text)
    quotas = Quotas(stored_bytes=stored_bytes, live_jobs=live_jobs, requests_s=requests_s)
    scopes, expires_at = _parse_scopes(role, scope), _parse_expiry(expires)
    sharing = Sharing(weight=weight, max_priority=Priority(max_priority))
    is_in_data_directory = redis_url is None and (data is not None or settings.redis_url() is None)
    if is_in_data_directory:
        effect = "from now on every request needs a key"
    else:
        effect = "services of this Redis server require a key once one exists, and always if MASKSMITH_AUTH=required"
    with open_keys(data, redis_url, create=True) as keys:
        info, token = keys.create(name, Role(role), quotas, scopes, expires_at, sharing)
        # The key exists now, and its token is nowhere else: it is printed before anything else can fail, such as the
        # end of a server that was started for this command.
        _print_token(info, token, f"clients take it from MASKSMITH_TOKEN; {effect}", as_json=as_json)
    if is_in_data_directory:
        record_key_requirement(data or settings.data_home())


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
    """Replace a key's token and print the new one; the present one stays valid for a time. Jobs and quotas stay.

    The token of a key that has expired stays invalid. If an even older token is still valid, because of the
    overlap of an earlier rotation, it becomes invalid at once.
    """
    from masksmith_state.keys import MAX_OVERLAP_S

    from .key_access import open_keys

    overlap_s, expires_at = _parse_duration("--overlap", overlap), _parse_expiry(expires)
    if overlap_s > MAX_OVERLAP_S:
        raise UsageError(f"--overlap {overlap!r}: at most {MAX_OVERLAP_S / SECONDS['d']:g}d")
    with open_keys(data, redis_url) as keys:
        info = keys.get(key)
        was_valid = info is not None and info.is_valid
        info_and_token = keys.rotate(key, overlap_s, expires_at)
        if info_and_token is None:
            raise UsageError(f"there is no valid key {key!r}; 'masksmith keys list' lists them")
        if was_valid:
            remark = f"the old token is valid for another {overlap}"
        else:
            remark = "the key had expired: its old token stays invalid"
        _print_token(*info_and_token, remark, as_json=as_json)  # Before anything else can fail, as in `create`.


def list_keys(data: DataOption = None, redis_url: RedisOption = None, as_json: JsonOption = False) -> None:
    """List the keys, oldest first, without their tokens."""
    from .key_access import open_keys

    with open_keys(data, redis_url) as keys:
        infos = keys.all()
    if as_json:
        return _print_json([key.model_dump(mode="json") for key in infos])
    headings = ("key", "name", "role", "scopes", "weight", "priority", "state", "created", "expires", "last used")
    rows = [headings, *map(_row, infos)]
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
    from .key_access import open_keys

    with open_keys(data, redis_url) as keys:
        if not keys.revoke(key):
            raise UsageError(f"there is no key {key!r}; 'masksmith keys list' lists them")
    if as_json:
        _print_json({"id": key, "revoked": True})
    else:
        typer.echo(f"key {key} is revoked")


def _print_json(document: Any) -> None:
    typer.echo(json.dumps(document, indent=2))


def _row(key: KeyInfo) -> Sequence[str]:
    """Texts of a key's row in the list, one for each heading."""
    from masksmith_state.keys import SCOPES_OF_ROLE

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
    if moment is None:
        return absent
    with suppress(OverflowError):  # In the last hours of the year 9999, and in the first ones of the year 1.
        moment = moment.astimezone()
    return moment.strftime("%Y-%m-%d %H:%M")


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
    from masksmith_state.keys import Role, Scope, check_scopes

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
    now = datetime.now(UTC)
    latest = now + timedelta(days=MAX_EXPIRY_DAYS)
    if re.fullmatch(r"\d{4}-\d{2}-\d{2}.*", text):
        try:
            moment = datetime.fromisoformat(text).astimezone(UTC)
        except (ValueError, OverflowError):
            raise UsageError(f"--expires {text!r}: a time such as 90d or 12h, or a date such as 2027-01-31") from None
    else:
        # A time that is too long is capped, since the sum might be no valid date; the capped time is refused below.
        moment = now + timedelta(seconds=min(_parse_duration("--expires", text), (MAX_EXPIRY_DAYS + 1) * SECONDS["d"]))
    if moment <= now:
        raise UsageError(f"--expires {text!r} is in the past")
    if moment > latest:
        raise UsageError(f"--expires {text!r}: at most {MAX_EXPIRY_DAYS}d")
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
