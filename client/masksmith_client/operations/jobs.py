"""Submitting jobs, listing them, waiting for them, and downloading their results."""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from uuid import uuid4

from masksmith.benchmark import Report
from masksmith.patterns import Pattern
from masksmith_client._errors import JobFailedError, StatusError
from masksmith_client._info import Info
from masksmith_client._job_view import JobView
from masksmith_client._progress import Bar
from masksmith_client.results.masks import Masks
from masksmith_client.results.updated_weights import UpdatedWeights
from masksmith_client.submission.prepare import Submission, SubmitOptions, prepare
from masksmith_client.submission.uploads import upload
from masksmith_client.submission.weights import Restore
from masksmith_client.transport import calls as calls
from masksmith_client.transport.events import Deadline, Event
from masksmith_client.transport.session import Session
from masksmith_wire.benchmarks import BenchmarkRequest
from masksmith_wire.documents import Job, JobState, JobSummary, Skipped

from .following import watch

PAGE = 100
Listener = Callable[[Event], None]
Submitted = tuple[Job, Sequence[Skipped], Mapping[str, Restore]]
"""A job's document, the tensors that were not sent, and how each mask becomes what its weight was."""


async def submit(
    session: Session, weights: object, pattern: str | Pattern, progress: bool | None, options: SubmitOptions
) -> Submitted:
    """Upload weights and submit a masks job."""
    submission = await session.block(lambda: prepare(weights, pattern, **options))
    await session.send(calls.check_wire())
    try:
        document = await _upload_and_post(session, submission, progress)
    except StatusError as error:
        # Uploads that the service had may have expired before the job arrived.
        if error.code not in calls.SENT_AGAIN:
            raise
        document = await _upload_and_post(session, submission, progress)
    return document, submission.skipped, submission.restore


async def submit_benchmark(session: Session, request: BenchmarkRequest) -> Job:
    """Submit a benchmark."""
    await session.send(calls.check_wire())
    return await session.send(calls.post_job(request, uuid4().hex))


async def list_jobs(session: Session, limit: int | None) -> AsyncGenerator[JobSummary, None]:
    """Give the summaries of all jobs, newest first."""
    left = sys.maxsize if limit is None else limit
    after: str | None = None
    while left > 0:
        page = await session.send(calls.list_jobs(after, min(PAGE, left)))
        for summary in page.jobs:
            yield summary
        after = page.next
        left = 0 if after is None else left - len(page.jobs)


async def wait(
    session: Session, job: JobView, timeout_s: float | None, progress: bool | None, on_event: Listener | None = None
) -> None:
    """Wait for the end of a job; its failure is an error."""
    with Bar(*job._work, show=progress) as bar:
        async with aclosing(watch(session, job, Deadline(timeout_s))) as events:
            async for event in events:
                bar.on_event(event)
                if on_event is not None:
                    on_event(event)
    if job.state in (JobState.FAILED, JobState.CANCELED):
        raise JobFailedError(job)


async def download_masks(session: Session, job: JobView) -> Masks:
    """Download a job's masks."""
    return Masks(await session.download(calls.get_masks(job.id)), job, job._restore)


async def download_weights(session: Session, job: JobView) -> UpdatedWeights:
    """Download a job's updated weights."""
    return UpdatedWeights(await session.download(calls.get_weights(job.id)), job._restore)


async def wait_for_report(session: Session, job: JobView, timeout_s: float | None, progress: bool | None) -> Report:
    """Wait for the end of a benchmark and download its report, also where some of its cases failed."""
    try:
        await wait(session, job, timeout_s, progress)
    except JobFailedError:
        canceled = job.state is JobState.CANCELED
        if canceled or not any(case.state is JobState.SUCCEEDED for case in job.document.cases):
            raise
    return await session.send(calls.get_benchmark(job.id))


async def info(session: Session) -> Info:
    """Ask what the service can do and whether it is ready."""
    problem = await session.send(calls.get_readiness())
    return Info(
        url=session.settings.url,
        ready=problem is None,
        trouble=None if problem is None else problem.detail,
        workers=await session.send(calls.get_workers()),
        patterns=await session.send(calls.get_capabilities("patterns")),
        solvers=await session.send(calls.get_capabilities("solvers")),
    )


async def _upload_and_post(session: Session, submission: Submission, progress: bool | None) -> Job:
    digests = await upload(session, submission, progress=progress)
    return await session.send(calls.post_job(submission.request(digests), submission.key))
