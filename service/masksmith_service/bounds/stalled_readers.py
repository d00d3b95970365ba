"""Ends connections whose client does not read what is sent."""

from __future__ import annotations

import asyncio
from asyncio.events import TimerHandle
from collections.abc import Callable

PROGRESS_BYTES = 2**16


class StalledReader:
    """Watches a transport from the time when its buffer is full until it is drained.

    Args:
        stall_s: Seconds within which the buffer must shrink by `PROGRESS_BYTES`, or be drained.
        on_stall: Called if it does not.
    """

    def __init__(self, stall_s: float, on_stall: Callable[[], None]) -> None:
        self._stall_s, self._on_stall = stall_s, on_stall
        self._timer: TimerHandle | None = None

    def start(self, transport: asyncio.Transport) -> None:
        """Start to watch."""
        self.stop()
        size = transport.get_write_buffer_size()
        self._timer = asyncio.get_running_loop().call_later(self._stall_s, self._look, transport, size)

    def stop(self) -> None:
        """Stop watching: the buffer is drained, or the connection has ended."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self, transport: asyncio.Transport, size: int) -> None:
        if size - transport.get_write_buffer_size() < PROGRESS_BYTES:
            self._on_stall()
        else:
            self.start(transport)
