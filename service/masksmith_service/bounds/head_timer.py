"""Limits the time in which the head of a request (request line and headers) must arrive."""

from __future__ import annotations

import asyncio
from asyncio.events import TimerHandle
from collections.abc import Callable


class HeadTimer:
    """Timer that runs while a connection waits for the head of a request.

    Args:
        head_s: Seconds within which the head must arrive.
        on_timeout: Called if the timer has not been stopped by then.
    """

    def __init__(self, head_s: float, on_timeout: Callable[[], None]) -> None:
        self.head_s, self._on_timeout = head_s, on_timeout
        self._handle: TimerHandle | None = None

    @property
    def is_running(self) -> bool:
        """Whether the timer has been started, and since then has neither been stopped nor run out."""
        return self._handle is not None

    def start(self) -> None:
        """Start the timer; if it is running, start it again from the beginning."""
        self.stop()
        self._handle = asyncio.get_running_loop().call_later(self.head_s, self._run_out)

    def stop(self) -> None:
        """Stop the timer: a head is complete, or the connection has ended."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _run_out(self) -> None:
        self._handle = None
        self._on_timeout()
