"""What can be done with a service: submitting, listing and finding jobs, and the one-line calls of the clients."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Generic, TypeVar
from uuid import uuid4

from masksmith.benchmark import Report
from masksmith.patterns import Pattern
from masksmith_client._errors import StatusError
from masksmith_client._info import Info
from masksmith_client._job_view import JobView
from masksmith_client.results.masks import Masks
from masksmith_client.submission.benchmarks import BenchmarkOptions, prepare_benchmark
from masksmith_client.submission.prepare import Submission, SubmitOptions, prepare
from masksmith_client.submission.uploads import upload
from masksmith_client.transport import calls as calls
from masksmith_client.transport.effects import Block, Emit, Operation
from masksmith_client.transport.session import Session
from masksmith_wire.benchmarks import BenchmarkRequest
from masksmith_wire.documents import Job as JobDocument

from .job import JobOperations

PAGE = 100
J = TypeVar("J", bound=JobView)


@dataclass(slots=True)
class ServiceOperations(Generic[J]):
    """Operations on one service; `Jobs` and `Client` say what each does and raises.

    Attributes:
        session: The session with the service.
        make_job: Makes a job of the client's kind from a document, skipped tensors and how masks are restored.
        of_job: Operations on single jobs.
    """

    session: Session
    make_job: Callable[..., J]
    of_job: JobOperations = field(init=False)

    def __post_init__(self) -> None:
        self.of_job = JobOperations(self.session)

    def submit(
        self, weights: object, pattern: str | Pattern, progress: bool | None, options: SubmitOptions
    ) -> Operation[J]:
        """Upload weights and submit a masks job."""
        submission = yield from Block(lambda: prepare(weights, pattern, **options))
        yield from self.session.send(calls.check_wire())
        try:
            document = yield from self._upload_and_post(submission, progress)
        except StatusError as error:
            # Uploads that the service had may have expired before the job arrived.
            if error.code not in calls.SENT_AGAIN:
                raise
            document = yield from self._upload_and_post(submission, progress)
        return self.make_job(document, submission.skipped, submission.restore)

    def submit_benchmark(
        self, model: object, patterns: str | Iterable[object], masks_of: str | None, options: BenchmarkOptions
    ) -> Operation[J]:
        """Submit a benchmark."""
        request = yield from Block(lambda: prepare_benchmark(model, patterns, masks_of=masks_of, **options))
        return (yield from self.submit_request(request))

    def submit_request(self, request: BenchmarkRequest) -> Operation[J]:
        """Submit a benchmark whose document is ready."""
        yield from self.session.send(calls.check_wire())
        return self.make_job((yield from self.session.send(calls.post_benchmark(request, uuid4().hex))))

    def get(self, job: str) -> Operation[J]:
        """Find a job by its id."""
        return self.make_job((yield from self.session.send(calls.get_job(job))))

    def list(self, limit: int | None) -> Operation[None]:
        """Emit the summaries of all jobs, newest first."""
        pages = calls.Pages(limit, PAGE)
        while pages.left:
            for summary in pages.take((yield from self.session.send(pages.call()))):
                yield from Emit(summary)

    def cancel(self, job: str) -> Operation[J]:
        """Stop a job by its id."""
        return self.make_job((yield from self.session.send(calls.cancel_job(job))))

    def delete(self, job: str) -> Operation[None]:
        """Delete a job by its id."""
        return self.session.send(calls.delete_job(job))

    def solve(
        self,
        weights: object,
        pattern: str | Pattern,
        progress: bool | None,
        timeout_s: float | None,
        options: SubmitOptions,
    ) -> Operation[Masks]:
        """Submit a masks job, wait for it and download its masks."""
        job = yield from self.submit(weights, pattern, progress, options)
        yield from self.of_job.wait(job, timeout_s, progress)
        return (yield from self.of_job.masks(job))

    def benchmark(
        self,
        model: object,
        patterns: str | Iterable[object],
        masks_of: str | None,
        progress: bool | None,
        timeout_s: float | None,
        options: BenchmarkOptions,
    ) -> Operation[Report]:
        """Submit a benchmark, wait for it and download its report."""
        job = yield from self.submit_benchmark(model, patterns, masks_of, options)
        return (yield from self.of_job.wait_for_report(job, timeout_s, progress))

    def info(self) -> Operation[Info]:
        """Ask what the service can do and whether it is ready."""
        problem = yield from self.session.send(calls.get_readiness())
        return Info(
            url=self.session.settings.url,
            ready=problem is None,
            trouble=None if problem is None else problem.detail,
            workers=(yield from self.session.send(calls.get_workers())),
            patterns=(yield from self.session.send(calls.get_capabilities("patterns"))),
            solvers=(yield from self.session.send(calls.get_capabilities("solvers"))),
        )

    def _upload_and_post(self, submission: Submission, progress: bool | None) -> Operation[JobDocument]:
        digests = yield from upload(self.session, submission, progress=progress)
        return (yield from self.session.send(calls.post_job(submission.request(digests), submission.key)))
