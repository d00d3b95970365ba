"""Reaches the Redis-protocol server of an installation from outside: it runs already, or is started for a moment."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from masksmith_client._errors import ClientError, InputError

from . import settings, valkey
from .console import note
from .data import DataDirectory, InUseError
from .supervision import PartFailedError, Supervisor


@contextmanager
def reached(data: Path | None, redis_url: str | None) -> Iterator[str]:
    """Give the URL of the server that holds an installation's records.

    Args:
        data: Data directory of `masksmith up`; the usual one if neither this nor a server is named.
        redis_url: Server that was named.

    Raises:
        InputError: If both are given, or the directory cannot be used.
        ClientError: If the server does not come up.
    """
    if data is not None and redis_url is not None:
        raise InputError("--data and --redis-url name two places; give one")
    url = redis_url or (settings.redis_url() if data is None else None)
    if url is not None:
        yield url
        return
    folder = data or settings.data_home()
    try:
        directory = DataDirectory(folder)
    except InUseError as error:
        with _running(error.path) as url:
            yield url
        return
    try:
        with _started(directory) as url:
            yield url
    finally:
        directory.release()


@contextmanager
def _running(folder: Path) -> Iterator[str]:
    place = valkey.SocketPlace(folder)
    try:
        if not valkey.answers(place.path):
            raise InputError(f"the 'masksmith up' of {folder} uses another Redis server; name it with --redis-url")
        yield valkey.url(place.path)
    finally:
        place.remove()


@contextmanager
def _started(directory: DataDirectory) -> Iterator[str]:
    supervisor, place = Supervisor(note), valkey.SocketPlace(directory.path)
    with supervisor.signals():
        try:
            supervisor.start(valkey.part(directory, place.path))
            while not valkey.answers(place.path):
                supervisor.check()
                if supervisor.stopping:
                    raise KeyboardInterrupt
                time.sleep(0.02)
            yield valkey.url(place.path)
        except PartFailedError as error:
            raise ClientError(str(error)) from None
        finally:
            supervisor.stop()
            place.remove()
