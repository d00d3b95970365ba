"""Jobs for asyncio, the twin of `_jobs`: the same steps with awaits."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from contextlib import aclosing
from typing import Any, Self, Unpack
from uuid import uuid4

from masksmith.benchmark import Report
from masksmith.patterns import Pattern
from masksmith_wire.benchmarks import BenchmarkRequest
from masksmith_wire.documents import JobState, JobSummary

from ._errors import ClientError, JobFailedError, StatusError
from ._job_view import JobView
from ._jobs import PAGE, Listener
from ._progress import Bar
from .results.masks import Masks
from .results.updated_weights import UpdatedWeights
from .submission.benchmarks import BenchmarkOptions, prepare_benchmark
from .submission.prepare import Submission, SubmitOptions, prepare
from .submission.uploads import PARALLEL, Tracker
from .submission.weights import Weight
from .transport import calls as calls
from .transport.async_connection import AsyncConnection
from .transport.events import Deadline, Event, Following, events_of, poll_pause_s


class AsyncJob(JobView):
    """A handle on a job; get one from `client.jobs`."""

    def __init__(self, connection: AsyncConnection, *view: Any) -> None:
        super().__init__(*view)
        self._connection = connection

    async def refresh(self) -> Self:
        """Look again."""
        self.document = await self._connection.send(calls.get_job(self.id))
        return self

    async def cancel(self) -> Self:
        """Stop it; see `Job.cancel`."""
        self.document = await self._connection.send(calls.cancel_job(self.id))
        return self

    async def delete(self) -> None:
        """Forget it and its results; a live one is canceled first."""
        await self._connection.send(calls.delete_job(self.id))

    async def events(self) -> AsyncGenerator[Event, None]:
        """Tell what happens, from the beginning until the job has ended; see `Job.events`."""
        async with aclosing(self._follow(Deadline(None))) as events:
            async for event in events:
                yield event

    async def wait(
        self, timeout_s: float | None = None, *, progress: bool | None = False, on_event: Listener | None = None
    ) -> Self:
        """Wait for the end; see `Job.wait`."""
        deadline = Deadline(timeout_s)
        with Bar(*self._work, show=progress) as bar:
            async with aclosing(self._progress(deadline)) as events:
                async for event in events:
                    bar.on_event(event)
                    if on_event is not None:
                        on_event(event)
        self._check()
        return self

    async def masks(self) -> Masks:
        """Download the masks there are; see `Job.masks`."""
        file = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the mapping
        try:
            await self._connection.download(calls.get_masks(self.id), file)
            return Masks(file, self, self._restore)
        except BaseException:
            file.close()
            raise

    async def weights(self) -> UpdatedWeights:
        """Download the updated weights; see `Job.weights`."""
        file = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the mapping
        try:
            await self._connection.download(calls.get_weights(self.id), file)
            return UpdatedWeights(file, self._restore)
        except BaseException:
            file.close()
            raise

    async def wait_for_report(self, timeout_s: float | None = None, *, progress: bool | None = False) -> Report:
        """Wait for the end of a benchmark and download its report, also where some of its cases failed.

        Raises:
            JobFailedError: If nothing was measured, or it was canceled.
            TimeoutError: If the time is over.
        """
        try:
            await self.wait(timeout_s, progress=progress)
        except JobFailedError:
            canceled = self.state is JobState.CANCELED
            if canceled or not any(case.state is JobState.SUCCEEDED for case in self.document.cases):
                raise
        return await self.benchmark()

    async def benchmark(self) -> Report:
        """Download the report of a benchmark that has ended.

        Raises:
            Conflict: If it still runs.
            NotFound: If the job is no benchmark.
        """
        return await self._connection.send(calls.get_benchmark(self.id))

    async def _progress(self, deadline: Deadline) -> AsyncGenerator[Event, None]:
        if not deadline.is_near:
            async with aclosing(self._follow(deadline)) as events:
                async for event in events:
                    yield event
        polls = 0
        while not (await self.refresh()).state.is_terminal:
            deadline.check(self.document)
            for event in events_of(self.document):
                yield event
            await asyncio.sleep(poll_pause_s(polls, deadline))
            polls += 1

    async def _follow(self, deadline: Deadline) -> AsyncGenerator[Event, None]:
        following = Following(self._connection.policy)
        while not deadline.is_near:
            broken: ClientError | None = None
            try:
                call = calls.get_events(self.id, following.begin())
                async with aclosing(self._connection.events(call)) as events:
                    async for event in events:
                        following.saw(event)
                        if event is not None:
                            yield event
                            if event.is_last:
                                return
                        if deadline.is_near:
                            return
            except ClientError as error:
                broken = error
            if following.learnt_nothing:
                try:
                    if (await self.refresh()).state.is_terminal:
                        for last in events_of(self.document):
                            yield last
                        return
                    broken = None
                except ClientError as error:
                    broken = error
            await asyncio.sleep(following.pause_s(broken))


class AsyncJobs:
    """The service's jobs."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def submit(
        self, weights: object, pattern: str | Pattern, *, progress: bool | None = None, **options: Unpack[SubmitOptions]
    ) -> AsyncJob:
        """Upload weights and ask for their masks; see `Jobs.submit`."""
        submission = await asyncio.to_thread(prepare, weights, pattern, **options)
        await self._connection.send(calls.check_wire())
        try:
            document = await self._submit(submission, progress)
        except StatusError as error:
            if error.code not in calls.SENT_AGAIN:
                raise
            document = await self._submit(submission, progress)
        return AsyncJob(self._connection, document, submission.skipped, submission.restore)

    async def submit_benchmark(
        self,
        model: object = None,
        patterns: str | Iterable[object] = (),
        *,
        masks_of: str | None = None,
        **options: Unpack[BenchmarkOptions],
    ) -> AsyncJob:
        """Ask for a benchmark; returns as soon as the job is accepted. See `Client.benchmark`."""
        request = prepare_benchmark(model, patterns, masks_of=masks_of, **options)
        return await self.submit_request(request)

    async def submit_request(self, request: BenchmarkRequest) -> AsyncJob:
        """Ask for a benchmark whose document is ready."""
        await self._connection.send(calls.check_wire())
        return AsyncJob(self._connection, await self._connection.send(calls.post_benchmark(request, uuid4().hex)))

    async def get(self, job: str) -> AsyncJob:
        """Find a job by its id; see `Jobs.get`."""
        return AsyncJob(self._connection, await self._connection.send(calls.get_job(job)))

    async def list(self, limit: int | None = None) -> AsyncIterator[JobSummary]:
        """Go through all jobs, newest first; pages are fetched on the way."""
        pages = calls.Pages(limit, PAGE)
        while pages.left:
            page = await self._connection.send(pages.call())
            for summary in pages.take(page):
                yield summary

    async def cancel(self, job: str) -> AsyncJob:
        """Stop a job by its id; see `Job.cancel`."""
        return AsyncJob(self._connection, await self._connection.send(calls.cancel_job(job)))

    async def delete(self, job: str) -> None:
        """Forget a job by its id; see `Jobs.delete`."""
        await self._connection.send(calls.delete_job(job))

    async def _submit(self, submission: Submission, progress: bool | None) -> Any:
        digests = await _upload(self._connection, submission, progress=progress)
        return await self._connection.send(calls.post_job(submission.request(digests), submission.key))


async def _upload(connection: AsyncConnection, submission: Submission, *, progress: bool | None) -> list[str]:
    slots = asyncio.Semaphore(PARALLEL)
    with Bar("uploading", submission.total_bytes, show=progress, in_bytes=True) as bar:
        tracker = Tracker(bar)

        async def upload_one(weight: Weight) -> str:
            async with slots:
                digest = await asyncio.to_thread(weight.digest)
                if not tracker.claim(digest) or await connection.send(calls.has_tensor(digest)):
                    tracker.skip(weight)
                else:
                    await connection.send(calls.put_tensor(digest, lambda: tracker.body(weight), weight.file_bytes))
                return digest

        tasks = [asyncio.ensure_future(upload_one(weight)) for weight in submission.uploads]
        try:
            digests = await asyncio.gather(*tasks)
        finally:
            tracker.stopped.set()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
    return list(digests)
