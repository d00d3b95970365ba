"""The environment as these commands see it; nothing else in this package reads it or makes one for a child."""

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
    """Whether the service lets everybody in without a key."""
    return os.environ.get("MASKSMITH_INSECURE", "").lower() in ("1", "true", "t", "yes", "y", "on")


def data_home() -> Path:
    """Where `masksmith up` keeps its data by default."""
    base = os.environ.get("XDG_DATA_HOME")
    return (Path(base) if base else Path.home() / ".local" / "share") / "masksmith"


def visible_gpus() -> int:
    """Number of NVIDIA GPUs that a worker may use; counted without CUDA, which would have to be loaded for it."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return len([device for device in visible.split(",") if device.strip() and device.strip() != "-1"])
    return len([device for device in Path("/dev").glob("nvidia[0-9]*") if device.name[6:].isdigit()])


def child_environment(variables: Mapping[str, str | None]) -> dict[str, str]:
    """Our own environment with variables on top; those that are None change nothing."""
    chosen = {name: value for name, value in variables.items() if value is not None}
    return {**os.environ, "PYTHONUNBUFFERED": "1", **chosen}
