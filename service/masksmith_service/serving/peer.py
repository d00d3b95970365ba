"""The peer: the other process of a service, to which connections move and from which they come."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import tempfile
from collections.abc import Callable

log = logging.getLogger(__name__)

READY, MOVED = b"r", b"m"

Adopt = Callable[[socket.socket, bytes], None]
"""Takes a connection in, and the bytes that were read from it already."""


class Peer:
    """Gives open connections away, and takes them in, over a channel that passes file descriptors.

    Args:
        adopt: Goes on with a connection that moves here.
        lost: Called when the other process is gone.
    """

    def __init__(self, adopt: Adopt, lost: Callable[[], None]) -> None:
        self._adopt, self._lost = adopt, lost
        self._channel: socket.socket | None = None
        self.is_ready = False

    def attach(self, channel: socket.socket) -> None:
        """Listen to a channel from now on."""
        channel.setblocking(False)
        self._channel = channel
        asyncio.get_running_loop().add_reader(channel, self._hear)

    def detach(self) -> None:
        """Forget the channel: what is given away meanwhile stays here."""
        self.is_ready = False
        if self._channel is not None:
            asyncio.get_running_loop().remove_reader(self._channel)
            self._channel.close()
            self._channel = None

    def say_ready(self) -> None:
        """Tell the other process that connections may come."""
        assert self._channel is not None
        self.is_ready = True
        self._channel.send(READY)

    def give(self, connection: int, first: bytes | bytearray) -> bool:
        """Move a connection, with what was read from it. Returns whether the other process has it now."""
        if self._channel is None or not self.is_ready:
            return False
        try:
            # A file, for no message between processes is sure to hold all that a socket gave at once.
            with tempfile.TemporaryFile(buffering=0) as file:
                file.write(first)
                socket.send_fds(self._channel, [MOVED], [connection, file.fileno()])
        except OSError as error:
            log.warning("a connection stays where it is: %s", error)
            return False
        return True

    def _hear(self) -> None:
        assert self._channel is not None
        try:
            said, descriptors, _, _ = socket.recv_fds(self._channel, 1, 2)
        except BlockingIOError:
            return
        except OSError:
            said, descriptors = b"", []
        if said == READY:
            self.is_ready = True
            log.info("the bulk process is ready")
        elif said == MOVED:
            self._take(descriptors)
        else:
            self.detach()
            self._lost()

    def _take(self, descriptors: list[int]) -> None:
        """Adopt a connection; one that came without its bytes is cut, for there were no descriptors left."""
        with contextlib.ExitStack() as opened:
            for descriptor in descriptors[1:]:
                opened.callback(os.close, descriptor)
            if len(descriptors) == 2:
                connection, file = descriptors
                self._adopt(socket.socket(fileno=connection), os.pread(file, os.fstat(file).st_size, 0))
                return
            log.error("too many open files: a connection is cut")
            for descriptor in descriptors[:1]:
                os.close(descriptor)
