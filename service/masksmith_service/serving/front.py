"""The front process: listens, answers what is short, and keeps a bulk process for the rest."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import sys
import time
from asyncio.subprocess import DEVNULL, Process

from masksmith_service.settings import Settings

from .connection import is_short
from .server import GRACE_S, Server

log = logging.getLogger(__name__)

RESTART_S = 1.0
"""Seconds between the end of a bulk process and the start of the next."""


class Front(Server):
    """Listens at the service's address."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings, is_short, sweeps=True)
        self._bulk: Process | None = None
        self._keeping: asyncio.Task[None] | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, then start the bulk process: until it is ready everything is served here."""
        await super().startup(sockets)
        self._keeping = asyncio.create_task(self._keep_bulk())

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Let both processes end what they have begun, side by side."""
        # A second more, for what the bulk process does last; left alone after that, it ends by itself.
        until = time.monotonic() + GRACE_S + 1
        self._end_bulk()
        await super().shutdown(sockets)
        assert self._keeping is not None
        while not (self._keeping.done() or self.force_exit or time.monotonic() > until):
            await asyncio.sleep(0.05)

    async def _keep_bulk(self) -> None:
        """Start a bulk process whenever there is none; clients send again what one held when it died."""
        while not self.should_exit:
            try:
                status: object = await self._run_bulk()
            except OSError as error:
                status = error
            if not self.should_exit:
                log.warning("the bulk process ended (%s); starting another", status)
                await asyncio.sleep(RESTART_S)

    async def _run_bulk(self) -> int:
        """Run a bulk process to its end, and give its exit status."""
        ours, theirs = socket.socketpair()
        self.peer.attach(ours)
        try:
            with theirs:
                self._bulk = await _start(theirs.fileno())
            if self.should_exit:
                self._end_bulk()
            return await self._bulk.wait()
        finally:
            self.peer.detach()

    def _end_bulk(self) -> None:
        if self._bulk is not None:
            with contextlib.suppress(ProcessLookupError):
                self._bulk.terminate()


async def _start(channel: int) -> Process:
    command = (sys.executable, "-P", "-m", "masksmith_service.serving.bulk", str(channel))
    return await asyncio.create_subprocess_exec(*command, stdin=DEVNULL, pass_fds=[channel])
