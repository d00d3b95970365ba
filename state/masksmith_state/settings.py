"""The settings that service and workers share, read from environment variables `MASKSMITH_...`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Self

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from masksmith_wire.text import printable, without_credentials

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
    def read(cls) -> Self:
        """Read the settings when a process starts.

        Raises:
            SystemExit: If one is not valid; its name, its value and what is allowed are on standard error.
        """
        try:
            return cls()
        except ValidationError as error:
            reasons = [
                _reason([str(part) for part in each["loc"]], each["input"], each["msg"]) for each in error.errors()
            ]
        except SettingsError as error:
            reasons = [f"settings MASKSMITH_...: {error}"]
        for reason in reasons:
            sys.stderr.write(f"masksmith: {printable(without_credentials(reason))}\n")
        raise SystemExit(2)

    @property
    def store_path(self) -> str:
        """The store's URL, or its directory as an absolute path."""
        return self.store_url if "://" in self.store_url else str(Path(self.store_url).absolute())

    def configure_logging(self) -> None:
        """Configure logging to standard error, with `log_level` and `log_format`."""
        logs.configure(self.log_level, self.log_format)


def _reason(path: list[str], value: object, message: str) -> str:
    """Reason why a setting is not valid; `path` is empty if several settings together are not."""
    text = message.removeprefix("Value error, ").replace("Input should", "must")
    if not path:
        return f"settings MASKSMITH_...: {text}"
    name = ".".join([f"MASKSMITH_{path[0].upper()}", *path[1:]])
    return f"{name}={str(value)[:80]}: {text}"
