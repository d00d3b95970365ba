"""Submit jobs, list them, wait for them, and download their results; get information on the service."""

from __future__ import annotations

import math
import sys
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from typing import BinaryIO
from uuid import uuid4

from masksmith.benchmark import Report
from masksmith.patterns import PatternsByTensor
from masksmith_client._errors import InputError, JobFailedError, StatusError, WireError
from masksmith_client._info import Info
from masksmith_client._job_view import JobView
from masksmith_client._progress import Bar, ShowProgress
from masksmith_client.results.checks import expected_tensors
from masksmith_client.results.masks import Masks
from masksmith_client.results.updated_weights import UpdatedWeights
from masksmith_client.submission.expected_tensor import ExpectedTensor
from masksmith_client.submission.job_filters import JobFilters, filter_parameters
from masksmith_client.submission.options import SubmitOptions
from masksmith_client.submission.prepare import prepare
from masksmith_client.submission.prepared_job import PreparedJob
from masksmith_client.submission.streamed_tensor import Restore
from masksmith_client.submission.uploads import upload
from masksmith_client.transport import calls
from masksmith_client.transport.events import Deadline, Event
from masksmith_client.transport.session import ServiceSession
from masksmith_wire.benchmarks import BenchmarkRequest
from masksmith_wire.documents import Job, JobState, JobSummary, MasksRequest, Skipped

from .following import events_until_end, refresh, wait_for_start

PAGE_SIZE = 100
MAX_ITEM_BYTES = 8
"""Bytes of an entry of the largest dtype of weights."""
Listener = Callable[[Event], None]
SubmittedJob = tuple[Job, Sequence[Skipped], Mapping[str, Restore], Mapping[str, ExpectedTensor], Sequence[str]]
"""The arguments of `JobView`: document, skipped tensors, restore functions, requested results, and notes."""


async def submit(
    session: ServiceSession, weights: object, pattern: PatternsByTensor, progress: ShowProgress, options: SubmitOptions
) -> SubmittedJob:
    """Upload weights and submit a masks job."""
    prepared = await session.run_blocking(lambda: prepare(weights, pattern, **options))
    await session.send(calls.check_wire())
    try:
        document = await _upload_and_post(session, prepared, progress)
    except StatusError as error:
        # Tensors that the service had may have expired before the job arrived.
        if error.code not in calls.REUPLOAD_CODES:
            raise
        document = await _upload_and_post(session, prepared, progress)
    return document, prepared.skipped, prepared.restore_functions, prepared.expected_tensors, prepared.notes


async def submit_document(
    session: ServiceSession, request: BenchmarkRequest | MasksRequest, idempotency_key: str | None = None
) -> Job:
    """Submit a job from its document."""
    await session.send(calls.check_wire())
    return await session.send(calls.post_job(request, idempotency_key or uuid4().hex))


async def list_jobs(
    session: ServiceSession, limit: int | None, filters: JobFilters
) -> AsyncGenerator[JobSummary, None]:
    """Yield the summaries of jobs that pass the filters, newest first: at most `limit`, or all if `limit` is None.

    Raises:
        WireError: If two pages in a row name the same job to continue after.
    """
    parameters = filter_parameters(filters)
    remaining = sys.maxsize if limit is None else limit
    after: str | None = None
    while remaining > 0:
        page = await session.send(calls.list_jobs(after, min(PAGE_SIZE, remaining), parameters))
        for summary in page.jobs[:remaining]:
            yield summary
        if page.next is not None and page.next == after:
            raise WireError(f"the list of jobs does not end: two pages in a row continue after {after[:80]!r}")
        after = page.next
        remaining = 0 if after is None else remaining - len(page.jobs)


async def wait(
    session: ServiceSession,
    job: JobView,
    timeout_s: float | None,
    progress: ShowProgress,
    on_event: Listener | None = None,
) -> None:
    """Wait until a job has ended.

    Raises:
        JobFailedError: If the job failed or was canceled.
        TimeoutError: If the job has not ended `timeout_s` seconds after this call.
    """
    unit = "shard" if job.document.kind == "masks" else "case"
    with Bar(*job._bar_label_and_total, show=progress, unit=unit) as bar:
        deadline = Deadline(timeout_s)
        if bar.is_shown:
            await wait_for_start(session, job, deadline, bar.note)
        async with aclosing(events_until_end(session, job, deadline)) as events:
            async for event in events:
                bar.on_event(event)
                if on_event is not None:
                    on_event(event)
    if job.state in (JobState.FAILED, JobState.CANCELED):
        raise JobFailedError(job)


async def download_masks(session: ServiceSession, job: JobView) -> Masks:
    """Download a job's masks, and check that they are those of its tensors.

    Raises:
        WireError: If names, shapes, patterns or digests are not those of the job.
    """
    await _refresh_list_entry(session, job)
    file = await session.download(calls.get_masks(job.id), _entry_count(job))
    try:
        expected = await _expected(session, job)
        masks = _open_download(file, job)
        await session.run_blocking(lambda: masks.check(expected))
    except BaseException:
        file.close()
        raise
    return masks


def _open_download(file: BinaryIO, job: JobView) -> Masks:
    try:
        return Masks(file, job, job._restore)
    except ValueError as error:
        raise WireError(f"the file of masks cannot be read: {error}") from None


async def download_weights(session: ServiceSession, job: JobView, masks: Masks | None = None) -> UpdatedWeights:
    """Download a job's updated weights, and check that they are those of its tensors and have its masks.

    Args:
        session: The session.
        job: The job.
        masks: The job's masks, if they were downloaded before; None downloads them for the check.

    Raises:
        InputError: If `masks` are those of another job.
        WireError: If names, shapes, dtypes or digests are not those of the job, or entries are not finite, or not zero
            where the masks drop them.
    """
    if masks is not None and (masks.job is None or masks.job.id != job.id):
        raise InputError(f"masks= are not those of job {job.id}: pass what its masks() returned")
    await _refresh_list_entry(session, job)
    file = await session.download(calls.get_weights(job.id), MAX_ITEM_BYTES * _entry_count(job))
    try:
        expected = await _expected(session, job)
        weights = UpdatedWeights(file, job._restore)
        checked_masks = await download_masks(session, job) if masks is None else masks
        try:
            await session.run_blocking(lambda: weights.check(expected, checked_masks))
        finally:
            if masks is None:
                checked_masks.close()
    except BaseException:
        file.close()
        raise
    return weights


async def _refresh_list_entry(session: ServiceSession, job: JobView) -> None:
    """Read the whole document of a job if `job.document` is only the job's entry in lists.

    An entry has neither tensors nor options. The service answers a submission with the entry if it has too little
    memory for the whole document at that moment.
    """
    document = job.document
    if document.progress.total > 0 and not (document.tensors or document.cases or document.skipped):
        await refresh(session, job)


async def _expected(session: ServiceSession, job: JobView) -> dict[str, ExpectedTensor]:
    """Return the tensors that a job's results must hold, from the request and the final states of its tensors."""
    # The results were downloaded, so the job has ended, but the last known document may be older.
    if not job.state.is_terminal:
        await refresh(session, job)
    return expected_tensors(job.document, job._requested)


def _entry_count(job: JobView) -> int:
    """Return the number of entries of a job's tensors: of the requested ones, or, if they are not known, of all.

    This is also the largest size of the masks, in bytes.
    """
    shapes: list[Sequence[int]] = [tensor.shape for tensor in job._requested.values()]
    return sum(math.prod(shape) for shape in shapes or [report.shape for report in job.document.tensors])


async def wait_for_report(
    session: ServiceSession, job: JobView, timeout_s: float | None, progress: ShowProgress
) -> Report:
    """Wait until a benchmark has ended and download its report, also if some of its cases failed.

    Raises:
        JobFailedError: If no case succeeded, or the job was canceled.
        TimeoutError: If the job has not ended `timeout_s` seconds after this call.
    """
    try:
        await wait(session, job, timeout_s, progress)
    except JobFailedError:
        is_canceled = job.state is JobState.CANCELED
        if is_canceled or not any(case.state is JobState.SUCCEEDED for case in job.document.cases):
            raise
    return await session.send(calls.get_benchmark(job.id))


async def info(session: ServiceSession) -> Info:
    """Return the service's readiness, workers, patterns and solvers."""
    problem = await session.send(calls.get_readiness())
    return Info(
        url=session.settings.url,
        ready=problem is None,
        trouble=None if problem is None else problem.detail,
        workers=await session.send(calls.get_workers()),
        patterns=await session.send(calls.get_capabilities("patterns")),
        solvers=await session.send(calls.get_capabilities("solvers")),
    )


async def _upload_and_post(session: ServiceSession, prepared: PreparedJob, progress: ShowProgress) -> Job:
    digests = await upload(session, prepared, progress=progress)
    return await session.send(calls.post_job(prepared.request(digests), prepared.idempotency_key))
