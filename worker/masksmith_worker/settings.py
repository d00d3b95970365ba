"""The worker's settings, read from environment variables `MASKSMITH_...`."""

from __future__ import annotations

import os
import re
import socket
from typing import Literal

from pydantic import Field, field_validator

from masksmith._cores import available_cores
from masksmith_state.settings import MAX_SECONDS, StateSettings


class Settings(StateSettings):
    """Settings of a worker process."""

    worker_name: str = Field(default_factory=lambda: f"worker-{socket.gethostname()}-{os.getpid()}")
    """Name of the worker; no other worker may have it."""
    worker_device: str = "cpu"
    """`cpu`, `cuda`, or a CUDA device such as `cuda:0`."""
    worker_role: Literal["search", "bench"] = "search"
    """`search` finds masks; `bench` measures kernels, one case at a time, with the device to itself."""
    worker_slots: int = Field(default_factory=available_cores, ge=1, le=4096)
    """Number of shards that are solved at the same time, each in a separate process; `bench` measures one case."""
    worker_nice: int = Field(default=10, ge=0, le=19)
    """Added to the niceness of processes that solve; with more than 0, other processes of the machine have priority."""
    worker_compile_later: bool = True
    """Compile the kernels of less frequent patterns in the background, once the worker is ready."""
    lease_s: float = Field(default=15.0, gt=0, le=MAX_SECONDS)
    """Seconds after which the lease of a shard lapses, unless its worker renews it."""
    attempts: int = Field(default=3, ge=1)
    """Limit of attempts at a shard: if the last one fails, the shard's tensor, output file or case fails."""
    store_patience_s: float = Field(default=120.0, ge=0, le=MAX_SECONDS)
    """Seconds for which a shard is retried while the store fails, before the attempt fails."""
    shard_limit_s: float = Field(default=1800.0, gt=0, le=MAX_SECONDS)
    """Seconds after which the process of a shard that is not finished is killed."""

    @field_validator("worker_device")
    @classmethod
    def _check_device(cls, device: str) -> str:
        if not re.fullmatch(r"cpu|cuda(?::[0-9]{1,3})?", device):
            raise ValueError("must be cpu, cuda, or cuda:N with the number of a device, such as cuda:0")
        return device

    @property
    def slots(self) -> int:
        """Number of shards solved at the same time; a benchmark worker measures one case at a time."""
        return self.worker_slots if self.worker_role == "search" else 1
