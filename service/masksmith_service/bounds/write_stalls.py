"""Limits the time in which a client must read more of the response while the write buffer is full."""

from __future__ import annotations

import asyncio
from asyncio.events import TimerHandle
from collections.abc import Callable

PROGRESS_BYTES = 2**16
"""Bytes by which the write buffer must shrink within the time limit, unless writing is resumed before."""


class WriteStallTimer:
    """Timer that runs while writing to a transport is paused, because its write buffer is full.

    Args:
        stall_s: Seconds within which the client must read `PROGRESS_BYTES`, or so much that writing is resumed.
        on_stall: Called if the client has read less within `stall_s`.
    """

    def __init__(self, stall_s: float, on_stall: Callable[[], None]) -> None:
        self._stall_s, self._on_stall = stall_s, on_stall
        self._timer: TimerHandle | None = None

    def start(self, transport: asyncio.Transport) -> None:
        """Start the timer because writing is paused, or start it again after progress while writing is still paused."""
        self.stop()
        buffered_bytes = transport.get_write_buffer_size()
        self._timer = asyncio.get_running_loop().call_later(
            self._stall_s, self._check_progress, transport, buffered_bytes
        )

    def stop(self) -> None:
        """Stop the timer, because writing is resumed or the connection has ended."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _check_progress(self, transport: asyncio.Transport, buffered_bytes: int) -> None:
        """Call `on_stall`, or start the timer again if the buffer has shrunk enough from `buffered_bytes`."""
        if buffered_bytes - transport.get_write_buffer_size() < PROGRESS_BYTES:
            self._on_stall()
        else:
            self.start(transport)
