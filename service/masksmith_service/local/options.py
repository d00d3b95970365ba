"""Command-line options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from masksmith_wire.text import printable, without_credentials

from .errors import UsageError


def in_home(path: Path) -> Path:
    """Replace the `~` at the beginning of an option's path, which shells leave in `--data=~/x`, by the home directory.

    Raises:
        UsageError: If it is the home directory of an unknown user.
    """
    try:
        return path.expanduser()
    except RuntimeError:
        raise UsageError(f"{str(path)!r}: there is no such user; name a directory") from None


def optional_in_home(path: Path | None) -> Path | None:
    """Do the same for an option that need not be given."""
    return None if path is None else in_home(path)


def _store_in_home(location: str | None) -> str | None:
    """Do the same for a directory or an `s3://` prefix."""
    return str(in_home(Path(location))) if location is not None and location.startswith("~") else location


RedisOption = Annotated[
    str | None, typer.Option("--redis-url", metavar="URL", help="redis:// or unix:///path.sock (MASKSMITH_REDIS_URL).")
]
StoreOption = Annotated[
    str | None,
    typer.Option(
        "--store-url", metavar="URL", help="A directory or s3://... (MASKSMITH_STORE_URL).", callback=_store_in_home
    ),
]
DataOption = Annotated[
    Path | None,
    typer.Option(
        "--data",
        metavar="DIR",
        help="Data directory of 'masksmith up', with the same default.",
        callback=optional_in_home,
    ),
]
InsecureOption = Annotated[
    bool, typer.Option("--insecure", help="Serve requests without keys, on any address (MASKSMITH_INSECURE).")
]
LogFormatOption = Annotated[
    str | None,
    typer.Option("--log-format", metavar="text|json", help="Format of the log lines (MASKSMITH_LOG_FORMAT)."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON on stdout and nothing else.")]


def note(message: str) -> None:
    """Print a line on stderr."""
    typer.echo(printable(without_credentials(message)), err=True)


def shared_settings(insecure: bool, log_format: str | None) -> dict[str, str | None]:
    """Environment variables of options; None for options that are not given.

    Raises:
        UsageError: If the log format is neither `text` nor `json`.
    """
    if log_format not in (None, "text", "json"):
        raise UsageError(f"--log-format {log_format!r}: text or json")
    return {"MASKSMITH_INSECURE": "true" if insecure else None, "MASKSMITH_LOG_FORMAT": log_format}
