"""The environment as the command line sees it; nothing else in it reads or builds one."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path


def redis_url() -> str | None:
    """A Redis server of the user's own, which `masksmith up` then uses."""
    return os.environ.get("MASKSMITH_REDIS_URL") or None


def store_url() -> str | None:
    """A blob store of the user's own."""
    return os.environ.get("MASKSMITH_STORE_URL") or None


def is_insecure() -> bool:
    """Whether the service is to ask nobody for a key."""
    return os.environ.get("MASKSMITH_INSECURE", "").lower() in ("1", "true", "t", "yes", "y", "on")


def be_told(**given: str | None) -> None:
    """Let options stand for environment variables of the same meaning; those that were not given change nothing."""
    os.environ.update({name: value for name, value in given.items() if value is not None})


def data_home() -> Path:
    """Where `masksmith up` keeps its data unless told."""
    base = os.environ.get("XDG_DATA_HOME")
    return (Path(base) if base else Path.home() / ".local" / "share") / "masksmith"


def visible_gpus() -> int:
    """Number of NVIDIA GPUs that a worker may use; found without CUDA, which would have to be loaded for it."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        return len([device for device in chosen.split(",") if device.strip() and device.strip() != "-1"])
    return len([device for device in Path("/dev").glob("nvidia[0-9]*") if device.name[6:].isdigit()])


def child_environment(given: Mapping[str, str]) -> dict[str, str]:
    """Our own environment with what a child is told on top."""
    return {**os.environ, "PYTHONUNBUFFERED": "1", **given}
