"""Limits the time that the head of a response takes, with all interim responses (1xx) before it.

httpx2 skips interim responses without a limit, and has timeouts of single reads only. It reports each step of a request
as an event to a function, the request's `trace`. From these events this module knows when the client begins and ends to
wait for a head, and when a network stream is opened. It replaces the method `read` of each such stream: the new method
checks the time after each read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextvars import ContextVar
from time import monotonic
from typing import Any

import httpx2

from masksmith_client._errors import SlowResponseError

_HEAD_EVENT = "receive_response_headers."
"""Beginning of the names of all events about the wait for a head. In the name of the first one, `started` follows."""
_OPEN_EVENTS = frozenset({"connect_tcp.complete", "connect_unix_socket.complete", "start_tls.complete"})
"""Events whose result is a network stream."""


class _HeadTimer:
    """Limits the time between the first bytes of a head, or of the interim responses before it, and its last read."""

    def __init__(self, request: httpx2.Request) -> None:
        self._url, self._timeout_s = request.url, request.extensions.get("timeout", {}).get("read")
        self._started: float | None = None

    def check(self) -> None:
        """Check the time after a read.

        Raises:
            SlowResponseError: If the head takes longer than the timeout of a read.
        """
        now = monotonic()
        if self._started is None:
            self._started = now
        elif self._timeout_s is not None and now - self._started > self._timeout_s:
            raise SlowResponseError(
                f"the response of {self._url} does not begin: only interim responses (1xx) or parts of its head "
                f"arrived in {now - self._started:.0f} s, with a timeout of {self._timeout_s:g} s"
            )


_current: ContextVar[_HeadTimer | None] = ContextVar("_current", default=None)
"""Timer of the head that this thread or task awaits."""


def limit_head(request: httpx2.Request, *, is_async: bool) -> None:
    """Limit the time of the response's head: after its first bytes, it may take as long as the timeout of a read.

    All requests of the client must have this limit: requests share connections, and a connection that was opened by a
    request without the limit would not check the time.
    """

    def trace(event: str, info: Mapping[str, Any]) -> None:
        action = event.partition(".")[2]
        if action.startswith(_HEAD_EVENT):
            _current.set(_HeadTimer(request) if action == _HEAD_EVENT + "started" else None)
        elif action in _OPEN_EVENTS:
            stream = info["return_value"]
            stream.read = (_timed_async if is_async else _timed)(stream.read)

    async def async_trace(event: str, info: Mapping[str, Any]) -> None:
        trace(event, info)

    request.extensions["trace"] = async_trace if is_async else trace


def _timed(read: Callable[..., bytes]) -> Callable[..., bytes]:
    def timed_read(*args: Any, **kwargs: Any) -> bytes:
        data = read(*args, **kwargs)
        _check()
        return data

    return timed_read


def _timed_async(read: Callable[..., Any]) -> Callable[..., Any]:
    async def timed_read(*args: Any, **kwargs: Any) -> bytes:
        data: bytes = await read(*args, **kwargs)
        _check()
        return data

    return timed_read


def _check() -> None:
    if (timer := _current.get()) is not None:
        timer.check()
