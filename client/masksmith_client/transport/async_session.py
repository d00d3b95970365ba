"""The session for asyncio, with `httpx2.AsyncClient` and tasks. `blocking_session` has the blocking session."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager
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


class AsyncSession(ServiceSession):
    """A session for asyncio, over a pool of connections; belongs to one event loop."""

    def __init__(self, settings: ConnectionSettings, policy: RetryPolicy, http: httpx2.AsyncClient) -> None:
        super().__init__(settings, policy)
        self._http = http

    async def close(self) -> None:
        """Close all connections."""
        await self._http.aclose()

    async def _exchange(self, call: Call[Any]) -> httpx2.Response:
        async with self._stream(call) as response:
            # `_stream` has read an error response already.
            return await self._read(response) if response.is_success else response

    async def _read(self, response: httpx2.Response) -> httpx2.Response:
        """Read the body of a response, and return a response that contains it."""
        document = LimitedDocument(response)
        async for piece in response.aiter_bytes():
            document.add(piece)
        return document.response

    @asynccontextmanager
    async def _stream(self, call: Call[Any], read_timeout_s: float | None = None) -> AsyncIterator[httpx2.Response]:
        response = await self._http.send(self._request(call, read_timeout_s), stream=True)
        try:
            check_coding(response)
            yield response if response.is_success else await self._read(response)
        finally:
            await response.aclose()

    async def _lines(self, response: httpx2.Response) -> AsyncGenerator[str | None, None]:
        splitter = LineSplitter()
        async for piece in response.aiter_bytes():
            for line in splitter.feed(piece) or (None,):
                yield line

    async def _write(self, response: httpx2.Response, file: LimitedFile) -> None:
        async for piece in response.aiter_bytes():
            await asyncio.to_thread(file.write, piece)

    async def sleep(self, seconds: float) -> None:
        """Sleep without blocking the event loop."""
        await asyncio.sleep(seconds)

    async def run_blocking(self, function: Callable[[], T]) -> T:
        """Run a function in a thread."""
        return await asyncio.to_thread(function)

    async def gather(
        self, operation: Callable[[ServiceSession, A], Coroutine[Any, Any, T]], arguments: Sequence[A], parallel: int
    ) -> list[T]:
        """Run an operation for each argument, at most `parallel` at a time; return the results in the same order.

        Each operation runs in a task. After an error the other tasks are cancelled; when they have ended, the error is
        raised.
        """
        limit = asyncio.Semaphore(parallel)

        async def run_within_limit(argument: A) -> T:
            async with limit:
                return await operation(self, argument)

        tasks = [asyncio.ensure_future(run_within_limit(argument)) for argument in arguments]
        try:
            return list(await asyncio.gather(*tasks))
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _request(self, call: Call[Any], read_timeout_s: float | None) -> httpx2.Request:
        content = None if call.body is None else _pieces(call.body())
        return build_request(self._http, call, content, read_timeout_s)


async def _pieces(body: Iterator[bytes]) -> AsyncIterator[bytes]:
    # Pieces are read in a thread: reading from a disk must not block the event loop.
    while (piece := await asyncio.to_thread(next, body, None)) is not None:
        yield piece
