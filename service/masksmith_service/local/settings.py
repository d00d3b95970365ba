"""Environment variables of the local commands, the number of GPUs, and the environment of child processes.

An empty variable is treated as if it were not set, except an empty `CUDA_VISIBLE_DEVICES`, which hides all GPUs.

Other modules of this package must not access `os.environ`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from itertools import takewhile
from pathlib import Path

from .errors import UsageError


def redis_url() -> str | None:
    """URL of the user's own Redis server, if set."""
    return os.environ.get("MASKSMITH_REDIS_URL") or None


def store_location(store_option: str | None, data_option: Path | None) -> str:
    """Return the store of an installation, as `masksmith up` chooses it.

    Args:
        store_option: URL that the user gave.
        data_option: Data directory that the user gave.

    Returns:
        The URL that the user gave, else that of `MASKSMITH_STORE_URL`, else the store of the data directory.

    Raises:
        UsageError: If the user gave both.
    """
    if store_option is not None and data_option is not None:
        raise UsageError("--data and --store-url exclude each other; give one")
    return store_option or store_url() or str((data_option or data_home()).absolute() / "store")


def store_url() -> str | None:
    """URL of the user's own blob store, if set."""
    return os.environ.get("MASKSMITH_STORE_URL") or None


def roots_json() -> str | None:
    """Text of `MASKSMITH_ROOTS`, if set: JSON with the roots that jobs may read tensors from and write outputs to."""
    return os.environ.get("MASKSMITH_ROOTS") or None


def auth() -> str | None:
    """Text of `MASKSMITH_AUTH`, if set: `required`, or `none` (no key is needed until the first one is made).

    Raises:
        UsageError: If it is another text.
    """
    text = os.environ.get("MASKSMITH_AUTH") or None
    if text not in (None, "required", "none"):
        raise UsageError(f"MASKSMITH_AUTH={text!r}: required or none")
    return text


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
        # CUDA ignores all devices after the first one that does not exist, such as -1.
        return len([*takewhile(lambda device: device.strip() not in ("", "-1"), visible_devices.split(","))])
    return len([device for device in Path("/dev").glob("nvidia[0-9]*") if device.name[6:].isdigit()])


def child_environment(variables: Mapping[str, str | None]) -> dict[str, str]:
    """Return the environment of this process, with these variables set and unbuffered output of Python.

    A variable whose value is None stays as it is.
    """
    set_variables = {name: value for name, value in variables.items() if value is not None}
    return {**os.environ, "PYTHONUNBUFFERED": "1", **set_variables}
