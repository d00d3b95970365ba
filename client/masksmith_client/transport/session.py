"""A session with one service: requests with retries, downloads, event streams.

Its methods are asynchronous. `BlockingSession` and `AsyncSession` implement the abstract methods, which do the I/O. The
implementations in `BlockingSession` block instead of awaiting, so its coroutines never suspend and need no event loop.
"""

from __future__ import annotations

import tempfile
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager, aclosing
from typing import Any, BinaryIO, TypeVar

import httpx2

from masksmith_client._errors import TimeoutError
from masksmith_wire.headers import read_header

from .calls import Call, status_error
from .events import NO_DEADLINE, STREAM_READ_TIMEOUT_S, Deadline, Event, EventParser
from .limits import LimitedFile
from .retry import FAILURES, Attempts, RetryPolicy, as_client_error
from .settings import ConnectionSettings

A = TypeVar("A")
T = TypeVar("T")


class ServiceSession(ABC):
    """Sends calls to one service.

    Attributes:
        settings: The service's URL and token.
        policy: The retry policy.
    """

    def __init__(self, settings: ConnectionSettings, policy: RetryPolicy) -> None:
        self.settings, self.policy = settings, policy
        self._has_answered = False

    async def send(self, call: Call[T], deadline: Deadline = NO_DEADLINE) -> T:
        """Send a request, with retries until the deadline, and parse its response.

        Raises:
            StatusError: If the status of the last response is an error that the call does not expect.
            TransportError: If there is no response to the last attempt, or no valid one.
            TimeoutError: If an attempt failed, and the deadline has passed before the next one.
        """

        async def attempt() -> T:
            response = await self._exchange(call)
            self._has_answered = True
            return call.read(response)

        return await self._retry(attempt, deadline)

    async def download(self, call: Call[None], max_data_bytes: int) -> BinaryIO:
        """Download a safetensors file to a temporary file; a retry starts from the beginning.

        Args:
            call: The call.
            max_data_bytes: The most bytes that the file's tensors can have.

        Raises:
            StatusError, TransportError: As `send` does; `TransportError` also if the file is larger.
        """
        file = tempfile.TemporaryFile()  # noqa: SIM115 - closed by the caller

        async def attempt() -> None:
            file.seek(0)
            file.truncate()
            async with self._stream(call) as response:
                await self._write(_checked(response), LimitedFile(file, max_data_bytes, response))
            read_header(file)  # For an incomplete file it raises a HeaderError, and the download is repeated.

        try:
            await self._retry(attempt)
        except BaseException:
            file.close()
            raise
        return file

    async def events(self, call: Call[None]) -> AsyncGenerator[Event | None, None]:
        """Yield None when the stream has opened; then, for each line, the event that the line completes, else None.

        Also yields None for each piece of the stream that completes no line, so that the caller can check its deadline.

        Raises:
            ClientError: If the stream cannot be opened or is interrupted; there are no retries.
        """
        parser = EventParser()
        try:
            async with (
                self._stream(call, STREAM_READ_TIMEOUT_S) as response,
                aclosing(self._lines(_checked(response))) as lines,
            ):
                yield None
                async for line in lines:
                    yield None if line is None else parser.feed(line)
        except httpx2.RequestError as error:
            raise as_client_error(error, self.settings.route) from error

    async def _retry(self, attempt: Callable[[], Coroutine[Any, Any, T]], deadline: Deadline = NO_DEADLINE) -> T:
        attempts = Attempts(self.policy, self.settings.route, has_answered=self._has_answered)
        while True:
            try:
                return await attempt()
            except FAILURES as error:
                pause_s = attempts.record_failure(error)
                if pause_s >= deadline.remaining_s:
                    await self.sleep(max(0.0, deadline.remaining_s))
                    failure = as_client_error(error, self.settings.route)
                    raise TimeoutError(f"timeout after a failed attempt: {failure}") from error
            await self.sleep(pause_s)

    @abstractmethod
    async def _exchange(self, call: Call[Any]) -> httpx2.Response:
        """Send a request once and read the response; raises `TransportError` beyond the limits of documents."""

    @abstractmethod
    def _stream(
        self, call: Call[Any], read_timeout_s: float | None = None
    ) -> AbstractAsyncContextManager[httpx2.Response]:
        """Send a request once; the body of the response is read only if its status is an error.

        `read_timeout_s`, if it is not None, replaces the read timeout.
        """

    @abstractmethod
    def _lines(self, response: httpx2.Response) -> AsyncGenerator[str | None, None]:
        """Yield the lines of a body, and None for each piece of it that completes no line."""

    @abstractmethod
    async def _write(self, response: httpx2.Response, file: LimitedFile) -> None:
        """Write a body to a file."""

    @abstractmethod
    async def sleep(self, seconds: float) -> None:
        """Pause the operation."""

    @abstractmethod
    async def run_blocking(self, function: Callable[[], T]) -> T:
        """Run a function that reads files or takes long to compute."""

    @abstractmethod
    async def gather(
        self, operation: Callable[[ServiceSession, A], Coroutine[Any, Any, T]], arguments: Sequence[A], parallel: int
    ) -> list[T]:
        """Run an operation for all arguments, `parallel` at a time; the first error stops the others."""


def _checked(response: httpx2.Response) -> httpx2.Response:
    """Return a response; raises `StatusError` if its status is not 2xx."""
    if not response.is_success:
        raise status_error(response)
    return response
