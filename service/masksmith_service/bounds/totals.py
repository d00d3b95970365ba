"""Adds up what the bounds allow: the memory of an installation's service, and the files of a process."""

from __future__ import annotations

from masksmith_service.settings import Settings

from .table import cost, limit

SPARE_FILES = 128
"""Files of libraries, logs and the store's directory."""


def worst_memory_bytes(settings: Settings) -> int:
    """Memory of all processes at worst: every bound reached, by the settings."""
    process = (
        cost("process")
        + settings.max_connections * cost("connection")
        + limit("piece_lists") * cost("piece_list")
        + limit("threads") * cost("thread")
        + settings.request_memory_bytes
    )
    return settings.processes * process


def worst_files(settings: Settings) -> int:
    """Open files of one process at worst."""
    to_broker = limit("broker_connections") + limit("threads") + settings.max_streams
    # Each thread, and each upload or download, has a blob and its list open.
    in_store = 2 * (limit("threads") + settings.request_memory_bytes // cost("download"))
    return settings.max_connections + SPARE_FILES + to_broker + in_store
