"""The asyncio client, the twin of `_client`: the same steps with awaits."""

from __future__ import annotations

from collections.abc import Iterable
from types import TracebackType
from typing import Self, Unpack

import httpx2

from masksmith.benchmark import Report
from masksmith.patterns import Pattern

from ._async_jobs import AsyncJobs
from ._info import Info, read_info
from .results.masks import Masks
from .submission.benchmarks import BenchmarkOptions
from .submission.prepare import SubmitOptions
from .transport import calls as calls
from .transport.async_connection import AsyncConnection
from .transport.http import DEFAULT_TIMEOUT_S, timeouts
from .transport.retry import RetryPolicy
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
        found = settings(url, token)
        self.url = found.url
        self._connection = AsyncConnection(found, retry or RetryPolicy(), timeouts(timeout_s), transport)
        self.jobs = AsyncJobs(self._connection)

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
        job = await self.jobs.submit(weights, pattern, progress=progress, **options)
        return await (await job.wait(timeout_s, progress=progress)).masks()

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
        job = await self.jobs.submit_benchmark(model, patterns, masks_of=masks_of, **options)
        return await job.wait_for_report(timeout_s, progress=progress)

    async def info(self) -> Info:
        """Ask what the service can do and whether it is ready."""
        return read_info(
            self.url,
            trouble=await self._connection.send(calls.get_readiness()),
            workers=await self._connection.send(calls.get_workers()),
            patterns=await self._connection.send(calls.get_capabilities("patterns")),
            solvers=await self._connection.send(calls.get_capabilities("solvers")),
        )

    async def close(self) -> None:
        """Close all connections."""
        await self._connection.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
