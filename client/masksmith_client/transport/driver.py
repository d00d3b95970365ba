"""The blocking driver: executes operations with `httpx2.Client` and threads. `async_driver` does so with asyncio."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from typing import Any, TypeVar

import httpx2

from .calls import Call
from .effects import Block, Close, Copy, Effect, Emit, Execution, Gather, Open, Operation, ReadLine, Send, Sleep, Stream
from .http import build_request, client_options
from .session import Session

T = TypeVar("T")


class StoppedError(Exception):
    """Another operation of the same `Gather` has failed."""


class Driver:
    """A pool of connections to one service; safe to use from several threads."""

    def __init__(
        self, session: Session, timeout: httpx2.Timeout, transport: httpx2.BaseTransport | None = None
    ) -> None:
        self.session = session
        self._http = httpx2.Client(**client_options(session.settings, timeout), transport=transport)

    def close(self) -> None:
        """Close all connections."""
        self._http.close()

    def run(self, operation: Operation[T], stop: threading.Event | None = None) -> T:
        """Execute an operation and give its result; what it emits is dropped.

        Args:
            operation: The operation.
            stop: Ends pauses and uploads when set, with `StoppedError`.
        """
        stop = stop or threading.Event()
        execution = Execution(operation)
        while (effect := execution.effect) is not None:
            with execution:
                execution.reply = self._execute(effect, stop)
        return execution.result

    def iterate(self, operation: Operation[None]) -> Generator[Any, None, None]:
        """Execute an operation and yield what it emits."""
        stop = threading.Event()
        execution = Execution(operation)
        while (effect := execution.effect) is not None:
            with execution:
                if isinstance(effect, Emit):
                    yield effect.value
                else:
                    execution.reply = self._execute(effect, stop)

    def _execute(self, effect: Effect[Any], stop: threading.Event) -> Any:
        match effect:
            case Send(call):
                return self._http.send(self._request(call, stop))
            case Open(call, silence_s):
                return self._open(self._request(call, stop, silence_s))
            case ReadLine(stream):
                return next(stream.lines, None)
            case Copy(stream, file):
                for piece in stream.response.iter_bytes():
                    file.write(piece)
            case Close(stream):
                stream.response.close()
            case Sleep(seconds):
                if stop.wait(seconds):
                    raise StoppedError
            case Block(function):
                return function()
            case Gather(operations, parallel):
                return self._gather(operations, parallel)
        return None

    def _request(self, call: Call[Any], stop: threading.Event, silence_s: float | None = None) -> httpx2.Request:
        if stop.is_set():
            raise StoppedError
        content = None if call.body is None else _until(stop, call.body())
        return build_request(self._http, call, content, silence_s)

    def _open(self, request: httpx2.Request) -> Stream:
        response = self._http.send(request, stream=True)
        if not response.is_success:
            response.read()
        return Stream(response, response.iter_lines())

    def _gather(self, operations: Sequence[Operation[T]], parallel: int) -> list[T]:
        stop = threading.Event()
        pool = ThreadPoolExecutor(parallel, thread_name_prefix="masksmith")
        try:
            futures = [pool.submit(self.run, operation, stop) for operation in operations]
            done, _ = wait(futures, return_when=FIRST_EXCEPTION)
            for future in done:
                future.result()
            return [future.result() for future in futures]
        finally:
            stop.set()
            pool.shutdown(cancel_futures=True)


def _until(stop: threading.Event, body: Iterator[bytes]) -> Iterator[bytes]:
    for piece in body:
        if stop.is_set():
            raise StoppedError
        yield piece
