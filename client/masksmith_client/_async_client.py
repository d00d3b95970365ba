"""The asyncio client; `_client` has the blocking one. Both run the coroutines in `operations`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Self, Unpack

import httpx2

from masksmith.benchmark import Report
from masksmith.patterns import Pattern, PatternsByTensor

from ._async_jobs import AsyncJobs
from ._info import Info
from ._progress import ShowProgress
from .operations import jobs as operations
from .results.masks import Masks
from .submission.benchmarks import BenchmarkOptions
from .submission.options import SubmitOptions
from .transport.async_session import AsyncSession
from .transport.http import DEFAULT_TIMEOUT_S, client_options, environment_errors_as_input_errors
from .transport.retry import RetryPolicy
from .transport.settings import read_settings


class AsyncClient:
    """A connection to a masksmith service, for asyncio; arguments as for `Client`.

        async with AsyncClient() as client:
            masks = await client.solve(model.state_dict(), "transposable 8:16")

    Raises:
        InputError: As `Client` does.
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
        settings = read_settings(url, token)
        self.url = settings.url
        with environment_errors_as_input_errors():
            http = httpx2.AsyncClient(**client_options(settings, timeout_s), transport=transport)
        self._session = AsyncSession(settings, retry or RetryPolicy(), http)
        self.jobs = AsyncJobs(self._session)

    async def solve(
        self,
        weights: object,
        pattern: PatternsByTensor,
        *,
        progress: ShowProgress = None,
        timeout_s: float | None = None,
        **options: Unpack[SubmitOptions],
    ) -> Masks:
        """Upload weights, wait until their masks are solved, and download the masks; see `Client.solve`."""
        job = await self.jobs.submit(weights, pattern, progress=progress, **options)
        return await (await job.wait(timeout_s, progress=progress)).masks()

    async def benchmark(
        self,
        model: object = None,
        patterns: str | Pattern | Iterable[object] = (),
        *,
        masks_of: str | None = None,
        progress: ShowProgress = None,
        timeout_s: float | None = None,
        **options: Unpack[BenchmarkOptions],
    ) -> Report:
        """Measure the speed-up of masks on the service's device, and wait for the report; see `Client.benchmark`."""
        job = await self.jobs.submit_benchmark(model, patterns, masks_of=masks_of, **options)
        return await job.wait_for_report(timeout_s, progress=progress)

    async def info(self) -> Info:
        """Return the service's readiness, workers, patterns and solvers."""
        return await operations.info(self._session)

    async def close(self) -> None:
        """Close all connections."""
        await self._session.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.url}>"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.close()
