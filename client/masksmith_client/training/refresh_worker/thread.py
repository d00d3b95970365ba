"""Workers inside the training process: a thread for functions that cannot be sent elsewhere, or the caller itself."""

from __future__ import annotations

import queue
import threading
from typing import Protocol

from .handler import Handler
from .messages import RefreshRequest, RefreshResponse


class RefreshWorker(Protocol):
    """Takes a request and has its response some time later."""

    where: str

    def submit(self, request: RefreshRequest) -> None:
        """Take a request; the one before must have been answered."""

    def poll(self) -> RefreshResponse | None:
        """Give the response if it is there; never waits."""

    def wait(self) -> RefreshResponse:
        """Give the response when it is there."""

    def close(self) -> None:
        """Stop; a request under way is dropped."""


class InlineWorker:
    """Handles requests in the calling thread."""

    where = "in this process"

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self._request: RefreshRequest | None = None

    def submit(self, request: RefreshRequest) -> None:
        """Take a request."""
        self._request = request

    def poll(self) -> RefreshResponse | None:
        """Handle it."""
        return None if self._request is None else self.wait()

    def wait(self) -> RefreshResponse:
        """Handle it."""
        assert self._request is not None
        request, self._request = self._request, None
        return self._handler.handle(request)

    def close(self) -> None:
        """There is nothing to stop."""


class ThreadWorker:
    """Handles requests in a daemon thread, which never keeps the process from ending."""

    where = "a thread"

    def __init__(self, handler: Handler) -> None:
        self._requests: queue.SimpleQueue[RefreshRequest | None] = queue.SimpleQueue()
        self._responses: queue.SimpleQueue[RefreshResponse] = queue.SimpleQueue()
        arguments = (handler, self._requests, self._responses)
        threading.Thread(target=_handle_all, args=arguments, name="masksmith-training", daemon=True).start()

    def submit(self, request: RefreshRequest) -> None:
        """Take a request."""
        self._requests.put(request)

    def poll(self) -> RefreshResponse | None:
        """Give the response if it is there."""
        try:
            return self._responses.get_nowait()
        except queue.Empty:
            return None

    def wait(self) -> RefreshResponse:
        """Give the response when it is there."""
        return self._responses.get()

    def close(self) -> None:
        """End the thread after the request under way."""
        self._requests.put(None)


def _handle_all(
    handler: Handler,
    requests: queue.SimpleQueue[RefreshRequest | None],
    responses: queue.SimpleQueue[RefreshResponse],
) -> None:
    while (request := requests.get()) is not None:
        responses.put(handler.handle(request))
