"""The settings that service and workers share, read from environment variables `MASKSMITH_...`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Self

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from masksmith_wire.text import without_credentials

from .roots.setting import RootSetting
from .telemetry import logs

MAX_SECONDS = 1e9
"""Largest value of a setting in seconds, 31 years: timers and the broker overflow at much larger ones."""


class StateSettings(BaseSettings):
    """Locations of the shared state and of roots, and how a process logs and traces."""

    model_config = SettingsConfigDict(env_prefix="MASKSMITH_", extra="ignore")

    redis_url: str = "redis://127.0.0.1:6379/0"
    """Broker and job records; `redis://` or `unix://`."""
    store_url: str = "masksmith-data/store"
    """Blob store: a directory, or `s3://bucket/prefix`."""
    roots: list[RootSetting] = []
    """Roots that jobs may read from and write to, as JSON: `[{"url": ..., "read": ["*"], "write": ["ops"]}]`."""
    sweep_s: float = Field(default=3.0, gt=0, le=MAX_SECONDS)
    """Seconds between two searches for shards whose lease has lapsed."""
    log_level: str = "INFO"
    """Least severe level that is logged."""
    log_format: logs.LogFormat = "text"
    """`text` or `json`: how a line of the log is written."""
    otlp_url: str = ""
    """OpenTelemetry collector that gets spans over HTTP, such as `http://127.0.0.1:4318`; empty: no traces."""

    @classmethod
    def from_environment(cls) -> Self:
        """Read the settings of a process that starts.

        Raises:
            SystemExit: If settings are invalid; the message has name, value and reason of each one.
        """
        try:
            return cls()
        except ValidationError as error:
            reasons = [_reason(**details) for details in error.errors(include_url=False, include_context=False)]
        except SettingsError as error:
            field = re.search(r'field "(\w+)"', str(error))
            reasons = [str(error) if field is None else f"{_variable(field[1])}: the value is not JSON"]
        raise SystemExit("\n".join(f"refusing to start: {reason}" for reason in reasons))

    @property
    def store_path(self) -> str:
        """The store's URL, or its directory as an absolute path."""
        return self.store_url if "://" in self.store_url else str(Path(self.store_url).absolute())

    def configure_logging(self) -> None:
        """Configure logging to standard error, with `log_level` and `log_format`."""
        logs.configure(self.log_level, self.log_format)


def _reason(loc: tuple[int | str, ...], msg: str, input: Any, **details: Any) -> str:
    """Return name, value and reason of an invalid setting; without the value of a URL, which may have a password."""
    reason = msg.removeprefix("Value error, ")
    if not loc:
        return reason
    name = _variable(str(loc[0]))
    if len(loc) > 1:
        return f"{name}, {'.'.join(map(str, loc[1:]))}: {reason}"
    value = f"={without_credentials(str(input))[:80]!r}"
    return f"{name}: {reason}" if name.endswith("_URL") else f"{name}{value}: {reason}"


def _variable(field: str) -> str:
    """Return the environment variable of a setting."""
    return f"MASKSMITH_{field}".upper()
