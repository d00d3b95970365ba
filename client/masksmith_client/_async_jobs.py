"""Jobs for asyncio; `_jobs` has jobs with blocking methods. Both run the same coroutines."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from typing import Any, Self, Unpack

from masksmith.benchmark import Report
from masksmith.patterns import Pattern, PatternsByTensor
from masksmith_wire.benchmarks import BenchmarkRequest
from masksmith_wire.documents import JobSummary, MasksRequest
from masksmith_wire.references import ModelListing

from ._job_view import JobView
from ._progress import ShowProgress
from .operations import jobs as operations
from .operations.following import refresh, stream_events
from .operations.jobs import Listener
from .results.masks import Masks
from .results.updated_weights import UpdatedWeights
from .submission.benchmarks import BenchmarkOptions, prepare_benchmark
from .submission.job_filters import JobFilters
from .submission.options import SubmitOptions
from .transport import calls
from .transport.async_session import AsyncSession
from .transport.events import Deadline, Event


class AsyncJob(JobView):
    """A handle on a job; get one from `client.jobs`."""

    def __init__(self, session: AsyncSession, *view_arguments: Any) -> None:
        super().__init__(*view_arguments)
        self._session = session

    async def refresh(self) -> Self:
        """Update `document` from the service."""
        await refresh(self._session, self)
        return self

    async def cancel(self) -> Self:
        """Cancel the job; see `Job.cancel`."""
        self.document = await self._session.send(calls.cancel_job(self.id))
        return self

    async def delete(self) -> None:
        """Delete the job and its results; a job that has not ended is canceled first."""
        await self._session.send(calls.delete_job(self.id))

    def events(self) -> AsyncGenerator[Event, None]:
        """Yield the job's events, from the first to the last; see `Job.events`."""
        return stream_events(self._session, self, Deadline(None))

    async def wait(
        self,
        timeout_s: float | None = None,
        *,
        progress: ShowProgress = False,
        on_event: Listener | None = None,
    ) -> Self:
        """Wait until the job has ended; see `Job.wait`."""
        await operations.wait(self._session, self, timeout_s, progress, on_event)
        return self

    async def masks(self) -> Masks:
        """Download the masks; see `Job.masks`."""
        return await operations.download_masks(self._session, self)

    async def weights(self, masks: Masks | None = None) -> UpdatedWeights:
        """Download the updated weights; see `Job.weights`."""
        return await operations.download_weights(self._session, self, masks)

    async def wait_for_report(self, timeout_s: float | None = None, *, progress: ShowProgress = False) -> Report:
        """Wait until a benchmark has ended and download its report; see `Job.wait_for_report`."""
        return await operations.wait_for_report(self._session, self, timeout_s, progress)

    async def output(self) -> dict[str, Any]:
        """Read the record of the job's output; see `Job.output`."""
        return await self._session.send(calls.get_output(self.id))

    async def benchmark(self) -> Report:
        """Download the report of a benchmark that has ended; see `Job.benchmark`."""
        return await self._session.send(calls.get_benchmark(self.id))


class AsyncJobs:
    """Submits jobs to the service, and finds, lists, cancels and deletes them."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def submit(
        self,
        weights: object,
        pattern: PatternsByTensor,
        *,
        progress: ShowProgress = None,
        **options: Unpack[SubmitOptions],
    ) -> AsyncJob:
        """Upload weights and submit a job for their masks; see `Jobs.submit`."""
        view_arguments = await operations.submit(self._session, weights, pattern, progress, options)
        return AsyncJob(self._session, *view_arguments)

    async def submit_benchmark(
        self,
        model: object = None,
        patterns: str | Pattern | Iterable[object] = (),
        *,
        masks_of: str | None = None,
        **options: Unpack[BenchmarkOptions],
    ) -> AsyncJob:
        """Submit a benchmark; returns as soon as the job is accepted. See `Client.benchmark`."""
        request = await self._session.run_blocking(
            lambda: prepare_benchmark(model, patterns, masks_of=masks_of, **options)
        )
        return await self.submit_request(request)

    async def submit_request(
        self, request: BenchmarkRequest | MasksRequest, idempotency_key: str | None = None
    ) -> AsyncJob:
        """Submit a job from its document; see `Jobs.submit_request`."""
        document = await operations.submit_document(self._session, request, idempotency_key)
        return AsyncJob(self._session, document)

    async def list_reference(self, location: str) -> ModelListing:
        """List the tensors of a file or model in a root of the service; see `Jobs.list_reference`."""
        return await self._session.send(calls.list_reference(location))

    async def get(self, job: str) -> AsyncJob:
        """Return a job by its id, or by a unique prefix of the id; see `Jobs.get`."""
        return AsyncJob(self._session, await self._session.send(calls.get_job(job)))

    def list(self, limit: int | None = None, **filters: Unpack[JobFilters]) -> AsyncIterator[JobSummary]:
        """Iterate over summaries of the jobs that pass all filters, newest first; pages are fetched as needed.

        Args:
            limit: Maximum number of jobs.
            filters: See `JobFilters`.
        """
        return operations.list_jobs(self._session, limit, filters)

    async def cancel(self, job: str) -> AsyncJob:
        """Cancel a job by its id; see `Job.cancel`."""
        return AsyncJob(self._session, await self._session.send(calls.cancel_job(job)))

    async def delete(self, job: str) -> None:
        """Delete a job by its id; see `Jobs.delete`."""
        await self._session.send(calls.delete_job(job))
