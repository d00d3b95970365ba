"""Limits the time in which a client must read more of a response that is in the write buffer."""

from __future__ import annotations

import asyncio
from asyncio.events import TimerHandle
from collections.abc import Callable

PROGRESS_BYTES = 2**16
"""Bytes by which the write buffer must shrink within the time limit, unless it becomes empty or writing is resumed."""


class WriteStallTimer:
    """Timer that runs while a transport's write buffer has data, and nothing is added to it.

    Nothing is added after the end of a response, or while writing is paused because the buffer is full.

    Args:
        stall_s: Seconds within which the client must read `PROGRESS_BYTES`, or all if less is left.
        on_stall: Called if the client has read less within `stall_s`.
    """

    def __init__(self, stall_s: float, on_stall: Callable[[], None]) -> None:
        self._stall_s, self._on_stall = stall_s, on_stall
        self._timer: TimerHandle | None = None

    @property
    def is_running(self) -> bool:
        """Whether the timer runs."""
        return self._timer is not None

    def start(self, transport: asyncio.Transport) -> None:
        """Start the timer, or start it again; if the write buffer is empty, only stop it."""
        self.stop()
        buffered_bytes = transport.get_write_buffer_size()
        if buffered_bytes:
            self._timer = asyncio.get_running_loop().call_later(
                self._stall_s, self._check_progress, transport, buffered_bytes
            )

    def stop(self) -> None:
        """Stop the timer, because more is going to be added to the buffer, or the connection has ended."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _check_progress(self, transport: asyncio.Transport, buffered_bytes: int) -> None:
        """Call `on_stall`, or start the timer again if the buffer has shrunk enough from `buffered_bytes`."""
        if buffered_bytes - transport.get_write_buffer_size() < min(PROGRESS_BYTES, buffered_bytes):
            self._on_stall()
        else:
            self.start(transport)
