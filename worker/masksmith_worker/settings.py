"""The worker's settings, from environment variables `MASKSMITH_...`; the only place that reads them."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from masksmith_state.telemetry.logs import LogFormat


class Settings(BaseSettings):
    """What a worker needs to know."""

    model_config = SettingsConfigDict(env_prefix="MASKSMITH_", extra="ignore")

    redis_url: str = "redis://127.0.0.1:6379/0"
    """Broker and job records; `redis://` or `unix://`."""
    store_url: str = "masksmith-data/store"
    """Blob store: a directory, or `s3://bucket/prefix`."""
    worker_name: str = Field(default_factory=lambda: f"worker-{socket.gethostname()}-{os.getpid()}")
    """Name among the workers; must be unique."""
    worker_device: str = "cpu"
    """`cpu`, or a CUDA device such as `cuda:0`."""
    worker_role: Literal["search", "bench"] = "search"
    """`search` finds masks; `bench` measures kernels, one case at a time, with the device to itself."""
    worker_slots: int = Field(default_factory=lambda: len(os.sched_getaffinity(0)), ge=1)
    """Shards solved at the same time, each in a process of its own."""
    worker_nice: int = Field(default=10, ge=0, le=19)
    """How much the processes that solve give way to others on their machine; 0: not at all."""
    lease_s: float = Field(default=15.0, gt=0)
    """Seconds that a shard stays taken without a sign of life."""
    attempts: int = Field(default=3, ge=1)
    """Times that a shard is tried before its tensor fails."""
    sweep_s: float = Field(default=3.0, gt=0)
    """Seconds between looks for stranded shards."""
    store_patience_s: float = Field(default=120.0, ge=0)
    """Seconds that a shard waits for a store that fails, before the attempt has failed."""
    shard_limit_s: float = Field(default=1800.0, gt=0)
    """Seconds after which a shard's process is killed."""
    log_level: str = "INFO"
    """Least severe level that is logged."""
    log_format: LogFormat = "text"
    """`text` or `json`: how a line of the log is written."""
    otlp_url: str = ""
    """OpenTelemetry collector that gets spans over HTTP, such as `http://127.0.0.1:4318`; none unless set."""

    @property
    def slots(self) -> int:
        """Parts of jobs done at the same time: what is measured is measured alone."""
        return self.worker_slots if self.worker_role == "search" else 1

    @property
    def store_path(self) -> str:
        """The store's URL, with relative directories made absolute."""
        return self.store_url if "://" in self.store_url else str(Path(self.store_url).absolute())
