"""Entry point of the service: `python -m masksmith_service`, with settings from the environment."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import redis

from masksmith_state.blobs.store import BlobStore
from masksmith_state.errors import InstallationError
from masksmith_state.housekeeping import Housekeeping
from masksmith_state.installation import Installation, protect_files
from masksmith_state.jobs.records import JobRecords
from masksmith_state.keys import Keys
from masksmith_state.roots.roots import Roots
from masksmith_state.settings import read_settings

from .server import serve
from .settings import Settings

log = logging.getLogger(__name__)


def main() -> int:
    """Serve until a stop signal, and return the exit code."""
    settings = read_settings(Settings)
    settings.configure_logging()
    protect_files()
    if settings.auth == "none" and not settings.is_local:
        log.error("refusing to listen on %s with MASKSMITH_AUTH=none, which is for loopback addresses", settings.host)
        return 2
    if _lacks_keys_beyond_localhost(settings):
        log.error(
            "refusing to listen on %s without keys: make one with 'masksmith keys create NAME --role admin', or set "
            "MASKSMITH_INSECURE=true to serve requests without authentication",
            settings.host,
        )
        return 2
    try:
        _check_installation(settings)
    except InstallationError as error:
        log.error("refusing to start: %s", error)
        return 2
    except OSError as error:
        log.error("refusing to start: %s: %s", error.filename or settings.store_location, error.strerror)
        return 2
    serve(settings)
    return 0


def _check_installation(settings: Settings) -> None:
    Roots(settings.roots).check_apart(settings.store_location)
    with _connection(settings) as client:
        Housekeeping(Installation(client, BlobStore(settings.store_location, create=True))).check()


def _lacks_keys_beyond_localhost(settings: Settings) -> bool:
    """Whether the service would listen beyond this machine, its requests need keys, and no key was ever created.

    Every request would then be refused. On a loopback address, the service starts even if there is no key.
    """
    if settings.insecure or settings.is_local or settings.oidc_issuer:
        return False
    try:
        with _connection(settings) as client:
            return not Keys(client).any_exist()
    except redis.RedisError:
        # The keys are in Redis: while it is unavailable, no request can be authenticated or served.
        return False


@contextmanager
def _connection(settings: Settings) -> Iterator[redis.Redis]:
    client = JobRecords(settings.redis_url).redis
    try:
        yield client
    finally:
        client.close()


if __name__ == "__main__":
    sys.exit(main())
