"""Runs the service: `python -m masksmith_service`, settings from the environment."""

from __future__ import annotations

import contextlib
import gc
import logging
import sys
from threading import Event
from types import FrameType

import redis
import uvicorn

from masksmith_protocol import logs
from masksmith_protocol.keys import Keys
from masksmith_protocol.records import JobRecords

from .app import create_app
from .settings import Settings

log = logging.getLogger(__name__)

COLLECT = (10_000, 20, 100)
"""How many new objects, and younger collections, there are before each of the collector's generations is looked at."""

SWITCH_S = 0.0005
"""How long the loop may keep the interpreter while a thread has an answer ready: by default ten times as long."""


class _Server(uvicorn.Server):
    """Tells the application at once that the end has come: the server itself first waits for all streams to end."""

    def __init__(self, config: uvicorn.Config, closing: Event) -> None:
        super().__init__(config)
        self._closing = closing

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Note a signal."""
        self._closing.set()
        super().handle_exit(sig, frame)


def main() -> int:
    """Listen until told to stop; followers are let go at once, other requests get 20 s to end."""
    settings, closing = Settings(), Event()
    sys.setswitchinterval(SWITCH_S)
    logs.configure(settings.log_level, settings.log_format)
    if _lets_anybody_in(settings):
        log.error(
            "refusing to listen on %s without keys: make one with 'masksmith keys create NAME --role admin', or set "
            "MASKSMITH_INSECURE=true to let everybody in who can reach it",
            settings.host,
        )
        return 2
    config = uvicorn.Config(
        create_app(settings, closing),
        host=settings.host,
        port=settings.port,
        http="httptools",
        loop="uvloop",
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=20,
    )
    server = _Server(config, closing)
    config.load()
    _spare_the_collector()
    with contextlib.suppress(KeyboardInterrupt):
        server.run()
    return 0 if server.started else 3


def _spare_the_collector() -> None:
    """Let the garbage collector leave what lives as long as the process alone: a look at all of it stops the loop."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECT)


def _lets_anybody_in(settings: Settings) -> bool:
    if settings.insecure or settings.is_local:
        return False
    records = JobRecords(settings.redis_url)
    try:
        return not Keys(records.redis).any_made()
    except redis.RedisError:
        # Nobody gets in before it answers: every request looks for its key there.
        return False
    finally:
        records.redis.close()


if __name__ == "__main__":
    sys.exit(main())
