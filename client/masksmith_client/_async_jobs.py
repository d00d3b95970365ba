"""Jobs for asyncio; `_jobs` has the blocking ones. What they do is in `operations`."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping, Sequence
from typing import Self, Unpack

from masksmith.benchmark import Report
from masksmith.patterns import Pattern
from masksmith_wire.benchmarks import BenchmarkRequest
from masksmith_wire.documents import Job as JobDocument, JobSummary, Skipped

from ._job_view import JobView
from .operations.job import JobOperations, Listener
from .operations.service import ServiceOperations
from .results.masks import Masks
from .results.updated_weights import UpdatedWeights
from .submission.benchmarks import BenchmarkOptions
from .submission.prepare import SubmitOptions
from .submission.weights import Restore
from .transport.async_driver import AsyncDriver
from .transport.events import Event


class AsyncJob(JobView):
    """A handle on a job; get one from `client.jobs`."""

    def __init__(
        self,
        driver: AsyncDriver,
        document: JobDocument,
        skipped: Sequence[Skipped] = (),
        restore: Mapping[str, Restore] | None = None,
    ) -> None:
        super().__init__(document, skipped, restore)
        self._driver = driver
        self._operations = JobOperations(driver.session)

    async def refresh(self) -> Self:
        """Look again."""
        await self._driver.run(self._operations.refresh(self))
        return self

    async def cancel(self) -> Self:
        """Stop it; see `Job.cancel`."""
        await self._driver.run(self._operations.cancel(self))
        return self

    async def delete(self) -> None:
        """Forget it and its results; a live one is canceled first."""
        await self._driver.run(self._operations.delete(self))

    def events(self) -> AsyncGenerator[Event, None]:
        """Give what happens, from the beginning until the job has ended; see `Job.events`."""
        return self._driver.iterate(self._operations.events(self))

    async def wait(
        self, timeout_s: float | None = None, *, progress: bool | None = False, on_event: Listener | None = None
    ) -> Self:
        """Wait for the end; see `Job.wait`."""
        await self._driver.run(self._operations.wait(self, timeout_s, progress, on_event))
        return self

    async def masks(self) -> Masks:
        """Download the masks there are; see `Job.masks`."""
        return await self._driver.run(self._operations.masks(self))

    async def weights(self) -> UpdatedWeights:
        """Download the updated weights; see `Job.weights`."""
        return await self._driver.run(self._operations.weights(self))

    async def wait_for_report(self, timeout_s: float | None = None, *, progress: bool | None = False) -> Report:
        """Wait for the end of a benchmark and download its report; see `Job.wait_for_report`."""
        return await self._driver.run(self._operations.wait_for_report(self, timeout_s, progress))

    async def benchmark(self) -> Report:
        """Download the report of a benchmark that has ended; see `Job.benchmark`."""
        return await self._driver.run(self._operations.benchmark(self))


class AsyncJobs:
    """The service's jobs."""

    def __init__(self, driver: AsyncDriver, operations: ServiceOperations[AsyncJob]) -> None:
        self._driver, self._operations = driver, operations

    async def submit(
        self, weights: object, pattern: str | Pattern, *, progress: bool | None = None, **options: Unpack[SubmitOptions]
    ) -> AsyncJob:
        """Upload weights and ask for their masks; see `Jobs.submit`."""
        return await self._driver.run(self._operations.submit(weights, pattern, progress, options))

    async def submit_benchmark(
        self,
        model: object = None,
        patterns: str | Iterable[object] = (),
        *,
        masks_of: str | None = None,
        **options: Unpack[BenchmarkOptions],
    ) -> AsyncJob:
        """Ask for a benchmark; returns as soon as the job is accepted. See `Client.benchmark`."""
        return await self._driver.run(self._operations.submit_benchmark(model, patterns, masks_of, options))

    async def submit_request(self, request: BenchmarkRequest) -> AsyncJob:
        """Ask for a benchmark whose document is ready."""
        return await self._driver.run(self._operations.submit_request(request))

    async def get(self, job: str) -> AsyncJob:
        """Find a job by its id; see `Jobs.get`."""
        return await self._driver.run(self._operations.get(job))

    def list(self, limit: int | None = None) -> AsyncIterator[JobSummary]:
        """Go through all jobs, newest first; pages are fetched on the way."""
        return self._driver.iterate(self._operations.list(limit))

    async def cancel(self, job: str) -> AsyncJob:
        """Stop a job by its id; see `Job.cancel`."""
        return await self._driver.run(self._operations.cancel(job))

    async def delete(self, job: str) -> None:
        """Forget a job by its id; see `Jobs.delete`."""
        await self._driver.run(self._operations.delete(job))
