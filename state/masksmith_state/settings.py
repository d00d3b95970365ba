"""The settings that service and workers share, read from environment variables `MASKSMITH_...`."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from .roots.setting import RootSetting
from .telemetry import logs


class StateSettings(BaseSettings):
    """Locations of the shared state and of roots, and how a process logs and traces."""

    model_config = SettingsConfigDict(env_prefix="MASKSMITH_", extra="ignore", hide_input_in_errors=True)

    redis_url: str = "redis://127.0.0.1:6379/0"
    """Broker and job records; `redis://` or `unix://`."""
    store_url: str = "masksmith-data/store"
    """Blob store: a directory, or `s3://bucket/prefix`."""
    roots: list[RootSetting] = []
    """Roots that jobs may read from and write to, as JSON: `[{"url": ..., "read": ["*"], "write": ["ops"]}]`."""
    sweep_s: float = Field(default=3.0, gt=0)
    """Seconds between two searches for shards whose lease has lapsed."""
    log_level: str = "INFO"
    """Least severe level that is logged."""
    log_format: logs.LogFormat = "text"
    """`text` or `json`: how a line of the log is written."""
    otlp_url: str = ""
    """OpenTelemetry collector that gets spans over HTTP, such as `http://127.0.0.1:4318`; empty: no traces."""

    @property
    def store_path(self) -> str:
        """The store's URL, or its directory as an absolute path."""
        return self.store_url if "://" in self.store_url else str(Path(self.store_url).absolute())

    def configure_logging(self) -> None:
        """Configure logging to standard error, with `log_level` and `log_format`."""
        logs.configure(self.log_level, self.log_format)
