"""The asyncio driver: executes operations with `httpx2.AsyncClient` and tasks. `driver` does so with blocking calls."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from typing import Any, TypeVar

import httpx2

from .calls import Call
from .effects import Block, Close, Copy, Effect, Emit, Execution, Gather, Open, Operation, ReadLine, Send, Sleep, Stream
from .http import build_request, client_options
from .session import Session

T = TypeVar("T")


class AsyncDriver:
    """A pool of connections to one service; belongs to one event loop."""

    def __init__(
        self, session: Session, timeout: httpx2.Timeout, transport: httpx2.AsyncBaseTransport | None = None
    ) -> None:
        self.session = session
        self._http = httpx2.AsyncClient(**client_options(session.settings, timeout), transport=transport)

    async def close(self) -> None:
        """Close all connections."""
        await self._http.aclose()

    async def run(self, operation: Operation[T]) -> T:
        """Execute an operation and give its result; what it emits is dropped."""
        execution = Execution(operation)
        while (effect := execution.effect) is not None:
            with execution:
                execution.reply = await self._execute(effect)
        return execution.result

    async def iterate(self, operation: Operation[None]) -> AsyncGenerator[Any, None]:
        """Execute an operation and yield what it emits."""
        execution = Execution(operation)
        while (effect := execution.effect) is not None:
            with execution:
                if isinstance(effect, Emit):
                    yield effect.value
                else:
                    execution.reply = await self._execute(effect)

    async def _execute(self, effect: Effect[Any]) -> Any:
        match effect:
            case Send(call):
                return await self._http.send(self._request(call))
            case Open(call, silence_s):
                return await self._open(self._request(call, silence_s))
            case ReadLine(stream):
                return await anext(stream.lines, None)
            case Copy(stream, file):
                async for piece in stream.response.aiter_bytes():
                    await asyncio.to_thread(file.write, piece)
            case Close(stream):
                await stream.response.aclose()
            case Sleep(seconds):
                await asyncio.sleep(seconds)
            case Block(function):
                return await asyncio.to_thread(function)
            case Gather(operations, parallel):
                return await self._gather(operations, parallel)
        return None

    def _request(self, call: Call[Any], silence_s: float | None = None) -> httpx2.Request:
        content = None if call.body is None else _pieces(call.body())
        return build_request(self._http, call, content, silence_s)

    async def _open(self, request: httpx2.Request) -> Stream:
        response = await self._http.send(request, stream=True)
        if not response.is_success:
            await response.aread()
        return Stream(response, response.aiter_lines())

    async def _gather(self, operations: Sequence[Operation[T]], parallel: int) -> list[T]:
        slots = asyncio.Semaphore(parallel)

        async def run(operation: Operation[T]) -> T:
            async with slots:
                return await self.run(operation)

        tasks = [asyncio.ensure_future(run(operation)) for operation in operations]
        try:
            return list(await asyncio.gather(*tasks))
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def _pieces(body: Iterator[bytes]) -> AsyncIterator[bytes]:
    # Pieces may be read from a disk, which must not block the event loop.
    while (piece := await asyncio.to_thread(next, body, None)) is not None:
        yield piece
