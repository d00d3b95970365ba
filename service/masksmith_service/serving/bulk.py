"""The bulk process: carries large bodies, so that no question waits behind one. The front process starts it."""

from __future__ import annotations

import logging
import os
import socket
import sys

from masksmith_service.settings import Settings
from masksmith_state.telemetry import logs

from .connection import is_bulk
from .server import Server

log = logging.getLogger(__name__)


class Bulk(Server):
    """Serves the connections that move here.

    Args:
        settings: The service's.
        channel: Where they come from.
    """

    def __init__(self, settings: Settings, channel: socket.socket) -> None:
        super().__init__(settings, is_bulk, sweeps=False)
        self._channel = channel

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Ask for connections."""
        await super().startup(sockets)
        self.peer.attach(self._channel)
        self.peer.say_ready()

    def _lose_peer(self) -> None:
        """End at once: the front process is gone, so nobody could ask for what is carried here."""
        log.warning("the front process is gone")
        os._exit(1)


def main() -> int:
    """Carry what comes over the channel whose file descriptor is the argument."""
    settings = Settings()
    logs.configure(settings.log_level, settings.log_format)
    os.nice(settings.bulk_nice)
    Bulk(settings, socket.socket(fileno=int(sys.argv[1]))).run_to_the_end([])
    return 0


if __name__ == "__main__":
    sys.exit(main())
