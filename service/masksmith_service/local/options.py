"""What several commands share: options, expansion of `~`, messages, and settings for the processes that they start."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from masksmith_wire.text import printable, without_credentials

from .errors import UsageError


def expand_home(path: Path) -> Path:
    """Replace a `~` or `~user` at the beginning of a path by the home directory; shells do not do so in `--data=~/x`.

    Raises:
        UsageError: If the path begins with `~` and the name of an unknown user.
    """
    try:
        return path.expanduser()
    except RuntimeError:
        raise UsageError(f"{str(path)!r}: there is no such user; name a directory") from None


def expand_optional_home(path: Path | None) -> Path | None:
    """Do as `expand_home`; None for an option that is not given."""
    return None if path is None else expand_home(path)


def _expand_store_home(location: str | None) -> str | None:
    """Do as `expand_home` for a directory; a URL `s3://...`, or None, is returned as it is."""
    return str(expand_home(Path(location))) if location is not None and location.startswith("~") else location


RedisOption = Annotated[
    str | None, typer.Option("--redis-url", metavar="URL", help="redis:// or unix:///path.sock (MASKSMITH_REDIS_URL).")
]
StoreOption = Annotated[
    str | None,
    typer.Option(
        "--store-url", metavar="URL", help="A directory or s3://... (MASKSMITH_STORE_URL).", callback=_expand_store_home
    ),
]
DataOption = Annotated[
    Path | None,
    typer.Option(
        "--data",
        metavar="DIR",
        help="Data directory of 'masksmith up', with the same default.",
        callback=expand_optional_home,
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
    """Print a line on stderr, without credentials; characters that are not printable are escaped."""
    typer.echo(printable(without_credentials(message)), err=True)


def shared_settings(insecure: bool, log_format: str | None) -> dict[str, str | None]:
    """Return the environment variables of `--insecure` and `--log-format`; None for an option that is not given.

    Raises:
        UsageError: If the log format is neither `text` nor `json`.
    """
    if log_format not in (None, "text", "json"):
        raise UsageError(f"--log-format {log_format!r}: text or json")
    return {"MASKSMITH_INSECURE": "true" if insecure else None, "MASKSMITH_LOG_FORMAT": log_format}
