"""The server: uvicorn, which takes in connections that moved here as well as those it accepts."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import socket
import sys
from functools import partial
from threading import Event
from types import FrameType
from typing import Any, cast

import uvicorn

from masksmith_service.app import create_app
from masksmith_service.settings import Settings

from .connection import Belongs, Connection, Terms
from .peer import Peer

log = logging.getLogger(__name__)

COLLECT = (10_000, 20, 100)
"""How many new objects, and younger collections, there are before each of the collector's generations is looked at."""

SWITCH_S = 0.0005
"""How long the loop may keep the interpreter while a thread has an answer ready: by default ten times as long."""

GRACE_S = 20
"""Seconds that requests get to end."""


class Server(uvicorn.Server):
    """Serves the application to the requests that belong here.

    Args:
        settings: The service's.
        belongs: Which requests those are.
        sweeps: Whether this process also looks for stranded work.
    """

    def __init__(self, settings: Settings, belongs: Belongs, *, sweeps: bool) -> None:
        self._closing, self._adoptions = Event(), set[asyncio.Task[None]]()
        self.peer = Peer(self._adopt, self._lose_peer)
        terms = Terms(belongs, settings.max_request_head_bytes, settings.request_head_s)
        super().__init__(
            uvicorn.Config(
                create_app(settings, self._closing, sweeps=sweeps),
                host=settings.host,
                port=settings.port,
                http=cast(type[asyncio.Protocol], partial(Connection, terms=terms, peer=self.peer)),
                loop="uvloop",
                ws="none",
                log_config=None,
                access_log=False,
                timeout_graceful_shutdown=GRACE_S,
            )
        )

    def run_to_the_end(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve until told to stop; followers are let go at once, other requests get 20 s to end."""
        sys.setswitchinterval(SWITCH_S)
        self.config.load()
        _spare_the_collector()
        with contextlib.suppress(KeyboardInterrupt):
            self.run(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Note a signal, and tell the application at once: the server itself first waits for all streams to end."""
        self._closing.set()
        super().handle_exit(sig, frame)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Let requests end; no connection moves any more."""
        self.peer.is_ready = False
        await super().shutdown(sockets)

    def _lose_peer(self) -> None:
        """Do without the other process."""

    def _adopt(self, connection: socket.socket, first: bytes) -> None:
        """Go on with a connection from which the other process has read the beginning of a request."""
        task = asyncio.get_running_loop().create_task(self._serve_adopted(connection, first))
        self._adoptions.add(task)
        task.add_done_callback(self._adoptions.discard)

    async def _serve_adopted(self, connection: socket.socket, first: bytes) -> None:
        speak: Any = self.config.http_protocol_class
        make = partial(speak, self.config, self.server_state, self.lifespan.state, first=first)
        connection.setblocking(False)
        try:
            _, made = await asyncio.get_running_loop().connect_accepted_socket(make, connection)
        except OSError as error:
            log.info("a connection was gone before it was taken in: %s", error)
            return
        protocol = cast(Connection, made)
        protocol.begin()
        if self.should_exit:
            protocol.shutdown()


def _spare_the_collector() -> None:
    """Let the garbage collector leave what lives as long as the process alone: a look at all of it stops the loop."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECT)
