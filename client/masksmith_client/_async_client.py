"""The asyncio client; `_client` has the blocking one. What they do is in `operations`."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from types import TracebackType
from typing import Self, Unpack

import httpx2

from masksmith.benchmark import Report
from masksmith.patterns import Pattern

from ._async_jobs import AsyncJob, AsyncJobs
from ._info import Info
from .operations.service import ServiceOperations
from .results.masks import Masks
from .submission.benchmarks import BenchmarkOptions
from .submission.prepare import SubmitOptions
from .transport.async_driver import AsyncDriver
from .transport.http import DEFAULT_TIMEOUT_S, timeouts
from .transport.retry import RetryPolicy
from .transport.session import Session
from .transport.settings import settings


class AsyncClient:
    """A connection to a masksmith service, for asyncio; arguments as of `Client`.

        async with AsyncClient() as client:
            masks = await client.solve(model.state_dict(), "transposable 8:16")

    Raises:
        InputError: If the URL is malformed.
    """

    def __init__(
        self,
        url: str | None = None,
        token: str | None = None,
        *,
        timeout_s: float | None = DEFAULT_TIMEOUT_S,
        retry: RetryPolicy | None = None,
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        session = Session(settings(url, token), retry or RetryPolicy())
        self.url = session.settings.url
        self._driver = AsyncDriver(session, timeouts(timeout_s), transport)
        self._operations = ServiceOperations(session, partial(AsyncJob, self._driver))
        self.jobs = AsyncJobs(self._driver, self._operations)

    async def solve(
        self,
        weights: object,
        pattern: str | Pattern,
        *,
        progress: bool | None = None,
        timeout_s: float | None = None,
        **options: Unpack[SubmitOptions],
    ) -> Masks:
        """Upload weights, wait for their best masks, and download them; see `Client.solve`."""
        return await self._driver.run(self._operations.solve(weights, pattern, progress, timeout_s, options))

    async def benchmark(
        self,
        model: object = None,
        patterns: str | Iterable[object] = (),
        *,
        masks_of: str | None = None,
        progress: bool | None = None,
        timeout_s: float | None = None,
        **options: Unpack[BenchmarkOptions],
    ) -> Report:
        """Measure what masks buy on the service's device, and wait for the report. See `Client.benchmark`."""
        operation = self._operations.benchmark(model, patterns, masks_of, progress, timeout_s, options)
        return await self._driver.run(operation)

    async def info(self) -> Info:
        """Ask what the service can do and whether it is ready."""
        return await self._driver.run(self._operations.info())

    async def close(self) -> None:
        """Close all connections."""
        await self._driver.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
