"""Starts the Redis-protocol server of an installation, or finds the URL of the one that runs."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from . import settings, valkey
from .data_directory import DataDirectory, InUseError
from .errors import UsageError
from .options import note
from .supervisor import Supervisor

START_WAIT_S = 5.0
"""Seconds for which a command waits for the server of a `masksmith up` that has begun to start."""


def start_server(supervisor: Supervisor, data: DataDirectory, socket_path: Path) -> None:
    """Start the server of a data directory; return when it accepts commands, or when the supervisor is stopping.

    Raises:
        UsageError: If no server is installed.
        ProcessFailedError: If the server, or another process of the supervisor, ends before the server accepts
            commands.
    """
    supervisor.start(valkey.process_spec(data, socket_path))
    while not supervisor.stopping:
        is_ready = valkey.is_ready(socket_path)
        supervisor.check()
        if is_ready:
            return
        time.sleep(0.02)


@contextmanager
def installation_redis(data: Path | None, redis_url: str | None, *, create: bool = False) -> Iterator[str]:
    """Yield the URL of an installation's Redis server.

    `redis_url` is yielded as it is. If the server of a data directory does not run, it is started, and stopped at the
    end of the block. If neither `data` nor `redis_url` is given, the server is that of `MASKSMITH_REDIS_URL`; if this
    is not set either, that of the default data directory.

    Args:
        data: Data directory of `masksmith up`.
        redis_url: URL of a running server.
        create: Whether to create a data directory that does not exist.

    Raises:
        UsageError: If both `data` and `redis_url` are given; if the directory cannot be used, or does not exist and
            `create` is False; if `masksmith up` runs in it, and its server is external or does not respond; or if no
            server is installed.
        FailedError: If the server ends before it accepts commands.
        KeyboardInterrupt: If a stop signal arrives before the started server accepts commands.
    """
    if data is not None and redis_url is not None:
        raise UsageError("--data and --redis-url exclude each other; give one")
    url = redis_url or (settings.redis_url() if data is None else None)
    if url is not None:
        yield url
        return
    path = data or settings.data_home()
    if not create and not path.exists():
        raise UsageError(f"there is no data directory {path}; name that of 'masksmith up' with --data")
    try:
        directory = DataDirectory(path)
    except InUseError as error:
        with _running_server(error.path) as url:
            yield url
        return
    try:
        with _started_server(directory) as url:
            yield url
    finally:
        directory.release()


@contextmanager
def _running_server(folder: Path) -> Iterator[str]:
    """Yield the URL of the server that `masksmith up` has started in a data directory; see `installation_redis`."""
    deadline = time.monotonic() + START_WAIT_S
    with valkey.short_socket_path(folder) as path:
        while not valkey.is_ready(path):
            if time.monotonic() >= deadline:
                raise UsageError(
                    f"the Redis server of the 'masksmith up' in {folder} does not respond: if it is an external one, "
                    "pass its URL with --redis-url; else try again"
                )
            time.sleep(0.05)
        yield valkey.url(path)


@contextmanager
def _started_server(directory: DataDirectory) -> Iterator[str]:
    """Start the server of a data directory, yield its URL, and stop it at the end of the block."""
    supervisor = Supervisor(note)
    with supervisor.handling_signals(), valkey.short_socket_path(directory.path) as path:
        try:
            start_server(supervisor, directory, path)
            if supervisor.stopping:
                raise KeyboardInterrupt
            yield valkey.url(path)
        finally:
            supervisor.stop()
