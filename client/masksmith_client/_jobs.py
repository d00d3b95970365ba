"""Jobs with blocking methods; `_async_jobs` has jobs for asyncio. Both run the same coroutines."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
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
from .transport.blocking_session import BlockingSession
from .transport.events import Deadline, Event


class Job(JobView):
    """A handle on a job; get one from `client.jobs`."""

    def __init__(self, session: BlockingSession, *view_arguments: Any) -> None:
        super().__init__(*view_arguments)
        self._session = session

    def refresh(self) -> Self:
        """Update `document` from the service."""
        self._session.run(refresh(self._session, self))
        return self

    def cancel(self) -> Self:
        """Cancel the job, unless it has ended; masks that are finished can still be downloaded."""
        self.document = self._session.run(self._session.send(calls.cancel_job(self.id)))
        return self

    def delete(self) -> None:
        """Delete the job and its results; a job that has not ended is canceled first."""
        self._session.run(self._session.send(calls.delete_job(self.id)))

    def events(self) -> Iterator[Event]:
        """Yield the job's events, from the first to the last; after a lost connection the stream is resumed.

        Raises:
            ClientError: If the job does not exist any more, or the service is unreachable for too long.
        """
        return self._session.iterate(stream_events(self._session, self, Deadline(None)))

    def wait(
        self,
        timeout_s: float | None = None,
        *,
        progress: ShowProgress = False,
        on_event: Listener | None = None,
    ) -> Self:
        """Wait until the job has ended.

        Args:
            timeout_s: Timeout in seconds; None waits forever. The job continues after a timeout. If a request
                gets no answer, this method may return later, after the `timeout_s` of the client.
            progress: Show a progress bar; None shows it on terminals and in notebooks, and
                `"lines"` also prints lines elsewhere.
            on_event: Called with every event. In the last 30 s before the timeout the job is polled instead: then
                `on_event` is called with progress and state after each poll, until a poll finds that the job has ended.

        Raises:
            JobFailedError: If the job failed or was canceled.
            TimeoutError: If the job takes longer than `timeout_s`.
        """
        self._session.run(operations.wait(self._session, self, timeout_s, progress, on_event))
        return self

    def masks(self) -> Masks:
        """Download the masks of the tensors that were solved.

        Raises:
            Conflict: If the job has not ended.
            NotFound: If no tensor has a mask.
        """
        return self._session.run(operations.download_masks(self._session, self))

    def weights(self, masks: Masks | None = None) -> UpdatedWeights:
        """Download the weights that a job with `update=` has updated, and check them against the job's masks.

        Args:
            masks: The masks that `masks()` returned; None downloads them for the check.

        Raises:
            Conflict: If the job has not ended.
            NotFound: If the job has no update, or no weight could be updated.
            InputError: If `masks` are those of another job.
            WireError: If a weight has another dtype or shape than the job requires, an entry that is not finite, or a
                non-zero entry that its mask drops.
        """
        return self._session.run(operations.download_weights(self._session, self, masks))

    def wait_for_report(self, timeout_s: float | None = None, *, progress: ShowProgress = False) -> Report:
        """Wait until a benchmark has ended and download its report, also if some of its cases failed.

        Raises:
            JobFailedError: If nothing was measured, or the job was canceled.
            TimeoutError: If the job takes longer than `timeout_s`.
        """
        return self._session.run(operations.wait_for_report(self._session, self, timeout_s, progress))

    def output(self) -> dict[str, Any]:
        """Read the record of the job's output, `masksmith.json`; the output must be complete.

        Raises:
            NotFound: If the job has no output, or the output is unfinished.
        """
        return self._session.run(self._session.send(calls.get_output(self.id)))

    def benchmark(self) -> Report:
        """Download the report of a benchmark that has ended.

        Raises:
            Conflict: If the job has not ended.
            NotFound: If the job is not a benchmark.
        """
        return self._session.run(self._session.send(calls.get_benchmark(self.id)))


class Jobs:
    """Submits jobs to the service, and finds, lists, cancels and deletes them."""

    def __init__(self, session: BlockingSession) -> None:
        self._session = session

    def submit(
        self,
        weights: object,
        pattern: PatternsByTensor,
        *,
        progress: ShowProgress = None,
        **options: Unpack[SubmitOptions],
    ) -> Job:
        """Upload weights and submit a job for their masks; returns as soon as the job is accepted.

        Args:
            weights: See `Client.solve`.
            pattern: See `Client.solve`.
            progress: Show a progress bar while uploading; None shows it on terminals and in notebooks, and
                `"lines"` also prints lines elsewhere.
            options: See `SubmitOptions`.

        Raises:
            InputError: If an argument is invalid; nothing was sent.
        """
        view_arguments = self._session.run(operations.submit(self._session, weights, pattern, progress, options))
        return Job(self._session, *view_arguments)

    def submit_benchmark(
        self,
        model: object = None,
        patterns: str | Pattern | Iterable[object] = (),
        *,
        masks_of: str | None = None,
        **options: Unpack[BenchmarkOptions],
    ) -> Job:
        """Submit a benchmark; returns as soon as the job is accepted. See `Client.benchmark`."""
        request = prepare_benchmark(model, patterns, masks_of=masks_of, **options)
        return self.submit_request(request)

    def submit_request(self, request: BenchmarkRequest | MasksRequest, idempotency_key: str | None = None) -> Job:
        """Submit a job from its document; the uploads that the document names must exist.

        Args:
            request: The document.
            idempotency_key: For a day, requests with the same key return the same job; default a new key.
        """
        call = operations.submit_document(self._session, request, idempotency_key)
        return Job(self._session, self._session.run(call))

    def list_reference(self, location: str) -> ModelListing:
        """List the tensors of a file or model in a root of the service, such as `s3://models/llama`.

        Raises:
            NotFound: If the location is in no root, or does not exist.
            Unauthorized: If the key may not read the root.
        """
        return self._session.run(self._session.send(calls.list_reference(location)))

    def get(self, job: str) -> Job:
        """Return a job by its id, or by a unique prefix of the id.

        Raises:
            NotFound: If there is no such job.
        """
        return Job(self._session, self._session.run(self._session.send(calls.get_job(job))))

    def list(self, limit: int | None = None, **filters: Unpack[JobFilters]) -> Iterator[JobSummary]:
        """Iterate over summaries of the jobs that pass all filters, newest first; pages are fetched as needed.

        Args:
            limit: Maximum number of jobs.
            filters: See `JobFilters`.

        Raises:
            InputError: If a filter is invalid. All errors of this method are raised by the iteration, not by the call.
            TypeError: If a filter does not exist.
        """
        return self._session.iterate(operations.list_jobs(self._session, limit, filters))

    def cancel(self, job: str) -> Job:
        """Cancel a job by its id; see `Job.cancel`."""
        return Job(self._session, self._session.run(self._session.send(calls.cancel_job(job))))

    def delete(self, job: str) -> None:
        """Delete a job by its id.

        Raises:
            NotFound: If there is no such job.
        """
        self._session.run(self._session.send(calls.delete_job(job)))
