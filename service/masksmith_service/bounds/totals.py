"""Adds up the memory of a service and the open files of a process, if every bound is reached."""

from __future__ import annotations

from masksmith_service.settings import Settings

from .table import cost, limit

SPARE_FILES = 128
"""Allowance for open files that no bound counts: files of libraries, logs, and the store's directory."""


def max_memory_bytes(settings: Settings) -> int:
    """Memory of all processes of a service if every bound is reached."""
    process_bytes = (
        cost("process")
        + settings.max_connections * cost("connection")
        + limit("piece_lists") * cost("piece_list")
        + limit("threads") * cost("thread")
        + settings.request_memory_bytes
    )
    return settings.processes * process_bytes


def max_open_files(settings: Settings) -> int:
    """Open files of one process if every bound is reached."""
    # Requests on the event loop, requests on threads, and event streams have connections to the broker.
    broker_connections = limit("broker_connections") + limit("threads") + settings.max_streams
    # Each thread, and each upload or download, has two files open: a blob, and the list of its pieces' digests.
    # A connection has one request at a time. The bound on memory does not lower this number: it allows hundreds of
    # small uploads.
    store_files = 2 * (limit("threads") + settings.max_connections)
    return settings.max_connections + SPARE_FILES + broker_connections + store_files
