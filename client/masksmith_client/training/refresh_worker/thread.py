"""The interface of refresh workers, and those inside the training process: `InlineWorker` and `ThreadWorker`."""

from __future__ import annotations

import logging
import queue
import threading
from typing import Protocol

from .messages import RefreshRequest, RefreshResponse

log = logging.getLogger("masksmith_client.training")


class Handler(Protocol):
    """Handles one request at a time."""

    def handle(self, request: RefreshRequest) -> RefreshResponse:
        """Solve the masks of a request; failures are part of the response."""


class RefreshWorker(Protocol):
    """Handles one request at a time; the response is polled or waited for.

    Attributes:
        handled_in: Where requests are handled, as words for the report (`TrainingReport.asking`), such as `a thread`.
    """

    handled_in: str

    def submit(self, request: RefreshRequest) -> None:
        """Submit a request; the response to the previous one must have been received."""

    def poll(self) -> RefreshResponse | None:
        """Return the response if it has arrived, else None; never waits for another thread or process."""

    def wait(self) -> RefreshResponse:
        """Block until the response has arrived, and return it."""

    def close(self) -> None:
        """Stop what handles the requests, if it was started; the next request starts it again."""


class InlineWorker:
    """Handles requests in the calling thread, when the response is polled or waited for."""

    handled_in = "in this process"

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self._request: RefreshRequest | None = None

    def submit(self, request: RefreshRequest) -> None:
        """Store a request until its response is polled or waited for."""
        self._request = request

    def poll(self) -> RefreshResponse | None:
        """Handle the stored request and return its response; None if there is no request."""
        return None if self._request is None else self.wait()

    def wait(self) -> RefreshResponse:
        """Handle the stored request and return its response."""
        assert self._request is not None
        # If this is interrupted, as by Ctrl-C in a notebook, the request stays, and is handled at the next call.
        response = self._handler.handle(self._request)
        self._request = None
        return response

    def close(self) -> None:
        """Do nothing: no thread or process was started."""


class ThreadWorker:
    """Handles requests in a daemon thread, which does not delay the exit of the process."""

    handled_in = "a thread"

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self._requests: queue.SimpleQueue[RefreshRequest | None] | None = None
        self._responses: queue.SimpleQueue[RefreshResponse] = queue.SimpleQueue()

    def submit(self, request: RefreshRequest) -> None:
        """Pass a request to the thread; first start one if none was started, or if the last one was stopped."""
        if self._requests is None:
            self._requests = queue.SimpleQueue()
            arguments = (self._handler, self._requests, self._responses)
            threading.Thread(target=_handle_all, args=arguments, name="masksmith-refresh", daemon=True).start()
        self._requests.put(request)

    def poll(self) -> RefreshResponse | None:
        """Return the response if it has arrived, else None; never blocks."""
        try:
            return self._responses.get_nowait()
        except queue.Empty:
            return None

    def wait(self) -> RefreshResponse:
        """Block until the response has arrived, and return it."""
        return self._responses.get()

    def close(self) -> None:
        """Stop the thread after a running request, whose response still arrives; the next request starts a new one."""
        if self._requests is not None:
            self._requests.put(None)
            self._requests = None


def _handle_all(
    handler: Handler,
    requests: queue.SimpleQueue[RefreshRequest | None],
    responses: queue.SimpleQueue[RefreshResponse],
) -> None:
    """Handle requests until None arrives instead of a request; whatever a handler raises is a response, too."""
    while (request := requests.get()) is not None:
        try:
            response = handler.handle(request)
        except BaseException as error:  # Such as the panics of libraries in Rust; without a response, training waits.
            log.exception("masks could not be computed")
            response = RefreshResponse(step=request.step, failure=f"{type(error).__name__}: {error}")
        responses.put(response)
