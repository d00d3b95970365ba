"""The blocking session, with `httpx2.Client` and threads. `async_session` has the one for asyncio."""

from __future__ import annotations

import copy
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeVar

import httpx2

from .calls import Call
from .http import build_request
from .limits import LimitedDocument, LimitedFile, LineSplitter, check_coding
from .retry import RetryPolicy
from .session import ServiceSession
from .settings import ConnectionSettings

A = TypeVar("A")
T = TypeVar("T")


class OperationStoppedError(Exception):
    """Raised in an operation after another one of the same `gather` has failed."""


class BlockingSession(ServiceSession):
    """A session whose coroutines block instead of awaiting, over a pool of connections; thread-safe."""

    def __init__(self, settings: ConnectionSettings, policy: RetryPolicy, http: httpx2.Client) -> None:
        super().__init__(settings, policy)
        self._http = http
        self._stop = threading.Event()

    def close(self) -> None:
        """Close all connections."""
        self._http.close()

    def run(self, operation: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine to completion, without an event loop.

        All methods of this session block and never suspend, so one `operation.send` runs the coroutine to its end.

        Raises:
            RuntimeError: If the coroutine suspends, because it awaits something other than this session's methods.
        """
        try:
            operation.send(None)
        except StopIteration as end:
            result: T = end.value
            return result
        operation.close()
        raise RuntimeError("an operation of the blocking client awaited something other than its session")

    def iterate(self, operation: AsyncGenerator[T, None]) -> Iterator[T]:
        """Iterate over an asynchronous generator, without an event loop, and close it at the end."""
        try:
            with suppress(StopAsyncIteration):
                while True:
                    yield self.run(operation.__anext__())
        finally:
            self.run(operation.aclose())

    async def _exchange(self, call: Call[Any]) -> httpx2.Response:
        async with self._stream(call) as response:
            # `_stream` has read an error response already.
            return self._read(response) if response.is_success else response

    def _read(self, response: httpx2.Response) -> httpx2.Response:
        """Read the body of a response, and return a response that contains it."""
        document = LimitedDocument(response)
        for piece in response.iter_bytes():
            document.add(piece)
        return document.response

    @asynccontextmanager
    async def _stream(self, call: Call[Any], read_timeout_s: float | None = None) -> AsyncIterator[httpx2.Response]:
        response = self._http.send(self._request(call, read_timeout_s), stream=True)
        try:
            check_coding(response)
            yield response if response.is_success else self._read(response)
        finally:
            response.close()

    async def _lines(self, response: httpx2.Response) -> AsyncGenerator[str | None, None]:
        splitter = LineSplitter()
        for piece in response.iter_bytes():
            for line in splitter.feed(piece) or (None,):
                yield line

    async def _write(self, response: httpx2.Response, file: LimitedFile) -> None:
        for piece in response.iter_bytes():
            file.write(piece)

    async def sleep(self, seconds: float) -> None:
        """Block for this time; raise `OperationStoppedError` once another operation of the same `gather` has failed."""
        if self._stop.wait(seconds):
            raise OperationStoppedError

    async def run_blocking(self, function: Callable[[], T]) -> T:
        """Run a function in the calling thread."""
        return function()

    async def gather(
        self, operation: Callable[[ServiceSession, A], Coroutine[Any, Any, T]], arguments: Sequence[A], parallel: int
    ) -> list[T]:
        """Run an operation for each argument, in at most `parallel` threads; return the results in the same order.

        After an error no other operation starts, and the running ones end at their next sleep, request or piece of an
        upload; then the error is raised.
        """
        # The operations share the connections of this session, but have a stop event of their own.
        session = copy.copy(self)
        session._stop = threading.Event()
        pool = ThreadPoolExecutor(parallel, thread_name_prefix="masksmith")
        try:
            futures = [
                pool.submit(lambda argument: session.run(operation(session, argument)), argument)
                for argument in arguments
            ]
            done, _ = wait(futures, return_when=FIRST_EXCEPTION)
            for future in done:
                future.result()
            return [future.result() for future in futures]
        finally:
            session._stop.set()
            pool.shutdown(cancel_futures=True)

    def _request(self, call: Call[Any], read_timeout_s: float | None = None) -> httpx2.Request:
        if self._stop.is_set():
            raise OperationStoppedError
        content = None if call.body is None else self._until_stopped(call.body())
        return build_request(self._http, call, content, read_timeout_s)

    def _until_stopped(self, body: Iterator[bytes]) -> Iterator[bytes]:
        for piece in body:
            if self._stop.is_set():
                raise OperationStoppedError
            yield piece
