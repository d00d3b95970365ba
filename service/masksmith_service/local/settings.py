"""Environment variables of the local commands, the number of GPUs, and the environment of child processes.

An empty variable is treated as if it were not set, except an empty `CUDA_VISIBLE_DEVICES`, which hides all GPUs.

Other modules of this package must not access `os.environ`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path


def redis_url() -> str | None:
    """URL of the user's own Redis server, if set."""
    return os.environ.get("MASKSMITH_REDIS_URL") or None


def store_url() -> str | None:
    """URL of the user's own blob store, if set."""
    return os.environ.get("MASKSMITH_STORE_URL") or None


def roots_json() -> str | None:
    """Text of `MASKSMITH_ROOTS`, the roots of tensors by reference and of outputs as JSON, if set."""
    return os.environ.get("MASKSMITH_ROOTS") or None


def auth() -> str | None:
    """Text of `MASKSMITH_AUTH`, if set: `required`, or `none` (no key is needed until the first one is made)."""
    return os.environ.get("MASKSMITH_AUTH") or None


def is_insecure() -> bool:
    """Whether `MASKSMITH_INSECURE` is true: the service then serves requests without keys, on any address."""
    return os.environ.get("MASKSMITH_INSECURE", "").lower() in ("1", "true", "t", "yes", "y", "on")


def data_home() -> Path:
    """Default data directory of the local commands."""
    base = os.environ.get("XDG_DATA_HOME")
    return (Path(base) if base else Path.home() / ".local" / "share") / "masksmith"


def visible_gpu_count() -> int:
    """Number of NVIDIA GPUs that a worker may use, counted without loading CUDA."""
    visible_devices = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible_devices is not None:
        return len([device for device in visible_devices.split(",") if device.strip() and device.strip() != "-1"])
    return len([device for device in Path("/dev").glob("nvidia[0-9]*") if device.name[6:].isdigit()])


def child_environment(variables: Mapping[str, str | None]) -> dict[str, str]:
    """Return the environment of this process, with these variables set and unbuffered output of Python.

    A variable whose value is None stays as it is.
    """
    set_variables = {name: value for name, value in variables.items() if value is not None}
    return {**os.environ, "PYTHONUNBUFFERED": "1", **set_variables}
