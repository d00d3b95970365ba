"""Runs the service: `python -m masksmith_service`, settings from the environment."""

from __future__ import annotations

import logging
import sys

import redis

from masksmith_state.jobs.records import JobRecords
from masksmith_state.keys import Keys

from .server import serve
from .settings import Settings

log = logging.getLogger(__name__)


def main() -> int:
    """Listen until told to stop."""
    settings = Settings()
    settings.configure_logging()
    if _lets_anybody_in(settings):
        log.error(
            "refusing to listen on %s without keys: make one with 'masksmith keys create NAME --role admin', or set "
            "MASKSMITH_INSECURE=true to let everybody in who can reach it",
            settings.host,
        )
        return 2
    serve(settings)
    return 0


def _lets_anybody_in(settings: Settings) -> bool:
    if settings.insecure or settings.is_local:
        return False
    records = JobRecords(settings.redis_url)
    try:
        return not Keys(records.redis).any_exist()
    except redis.RedisError:
        # Nobody gets in before it answers: every request looks for its key there.
        return False
    finally:
        records.redis.close()


if __name__ == "__main__":
    sys.exit(main())
