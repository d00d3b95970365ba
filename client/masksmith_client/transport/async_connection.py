"""The asyncio connection, the twin of `connection`: the same steps with awaits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from typing import BinaryIO, TypeVar

import httpx2

from masksmith_client.results.masks import check_file

from .calls import Call, refusal
from .connection import FAILURES
from .events import SILENCE_S, Event, EventParser
from .http import client_options
from .retry import Attempts, RetryPolicy, as_client_error
from .settings import Settings

T = TypeVar("T")


class AsyncConnection:
    """A pool of connections to one service; belongs to one event loop."""

    def __init__(
        self,
        settings: Settings,
        policy: RetryPolicy,
        timeout: httpx2.Timeout,
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        self.settings = settings
        self.policy = policy
        self._reached = False
        self._http = httpx2.AsyncClient(**client_options(settings, timeout), transport=transport)

    async def close(self) -> None:
        """Close all connections."""
        await self._http.aclose()

    async def send(self, call: Call[T]) -> T:
        """Send a call until it is answered; see `Connection.send`."""
        attempts = self._attempts()
        while True:
            try:
                response = await self._http.send(self._request(call))
                self._reached = True
                return call.read(response)
            except FAILURES as error:
                await asyncio.sleep(attempts.pause_s(error))

    async def download(self, call: Call[None], file: BinaryIO) -> None:
        """Write an answer's body into `file`; see `Connection.download`."""
        attempts = self._attempts()
        while True:
            try:
                file.seek(0)
                file.truncate()
                response = await self._open(call)
                try:
                    async for piece in response.aiter_bytes():
                        await asyncio.to_thread(file.write, piece)
                finally:
                    await response.aclose()
                return check_file(file)
            except FAILURES as error:
                await asyncio.sleep(attempts.pause_s(error))

    async def events(self, call: Call[None], silence_s: float = SILENCE_S) -> AsyncGenerator[Event | None, None]:
        """Give the events of one stream; see `Connection.events`."""
        parser = EventParser()
        try:
            response = await self._open(call, silence_s)
            try:
                yield None
                async for line in response.aiter_lines():
                    yield parser.feed(line)
            finally:
                await response.aclose()
        except httpx2.RequestError as error:
            raise as_client_error(error, self.settings.url) from error

    def _attempts(self) -> Attempts:
        return Attempts(self.policy, self.settings.url, reached=self._reached)

    def _request(self, call: Call[T]) -> httpx2.Request:
        content = _pieces(call.body()) if call.body else None
        return self._http.build_request(
            call.method, call.path, params=dict(call.params), headers=dict(call.headers), content=content
        )

    async def _open(self, call: Call[None], silence_s: float | None = None) -> httpx2.Response:
        request = self._request(call)
        if silence_s is not None:
            request.extensions["timeout"] = {**request.extensions["timeout"], "read": silence_s}
        response = await self._http.send(request, stream=True)
        if not response.is_success:
            await response.aread()
            await response.aclose()
            raise refusal(response)
        return response


async def _pieces(body: Iterator[bytes]) -> AsyncIterator[bytes]:
    # Pieces may come from a disk; the loop must not wait for it.
    while (piece := await asyncio.to_thread(next, body, None)) is not None:
        yield piece
