"""Jobs, blocking. The asyncio twin is `_async_jobs`."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Self, Unpack
from uuid import uuid4

from masksmith.benchmark import Report
from masksmith.patterns import Pattern
from masksmith_wire.benchmarks import BenchmarkRequest
from masksmith_wire.documents import JobState, JobSummary

from ._errors import ClientError, JobFailedError, StatusError
from ._job_view import JobView
from ._progress import Bar
from .results.masks import Masks
from .results.updated_weights import UpdatedWeights
from .submission.benchmarks import BenchmarkOptions, prepare_benchmark
from .submission.prepare import Submission, SubmitOptions, prepare
from .submission.uploads import upload
from .transport import calls as calls
from .transport.connection import Connection
from .transport.events import Deadline, Event, Following, events_of, poll_pause_s

PAGE = 100
Listener = Callable[[Event], None]


class Job(JobView):
    """A handle on a job; get one from `client.jobs`."""

    def __init__(self, connection: Connection, *view: Any) -> None:
        super().__init__(*view)
        self._connection = connection

    def refresh(self) -> Self:
        """Look again."""
        self.document = self._connection.send(calls.get_job(self.id))
        return self

    def cancel(self) -> Self:
        """Stop it; what is finished stays downloadable, and a job that has ended stays as it is."""
        self.document = self._connection.send(calls.cancel_job(self.id))
        return self

    def delete(self) -> None:
        """Forget it and its results; a live one is canceled first."""
        self._connection.send(calls.delete_job(self.id))

    def events(self) -> Iterator[Event]:
        """Tell what happens, from the beginning until the job has ended, across lost connections.

        Raises:
            ClientError: If the job is gone, or the service is out of reach for too long.
        """
        yield from self._follow(Deadline(None))

    def wait(
        self, timeout_s: float | None = None, *, progress: bool | None = False, on_event: Listener | None = None
    ) -> Self:
        """Wait for the end.

        Args:
            timeout_s: Longest wait; endless if None. The job goes on after it.
            progress: Show a bar; None shows one on terminals and in notebooks.
            on_event: Called with every event.

        Raises:
            JobFailedError: If it failed or was canceled.
            TimeoutError: If the time is over.
        """
        deadline = Deadline(timeout_s)
        with Bar(*self._work, show=progress) as bar:
            for event in self._progress(deadline):
                bar.on_event(event)
                if on_event is not None:
                    on_event(event)
        self._check()
        return self

    def masks(self) -> Masks:
        """Download the masks there are.

        Raises:
            Conflict: If the job still runs.
            NotFound: If no tensor has a mask.
        """
        file = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the mapping
        try:
            self._connection.download(calls.get_masks(self.id), file)
            return Masks(file, self, self._restore)
        except BaseException:
            file.close()
            raise

    def weights(self) -> UpdatedWeights:
        """Download the weights that a job with `update=` has updated.

        Raises:
            Conflict: If the job still runs.
            NotFound: If it updates none, or none could be.
        """
        file = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the mapping
        try:
            self._connection.download(calls.get_weights(self.id), file)
            return UpdatedWeights(file, self._restore)
        except BaseException:
            file.close()
            raise

    def wait_for_report(self, timeout_s: float | None = None, *, progress: bool | None = False) -> Report:
        """Wait for the end of a benchmark and download its report, also where some of its cases failed.

        Raises:
            JobFailedError: If nothing was measured, or it was canceled.
            TimeoutError: If the time is over.
        """
        try:
            self.wait(timeout_s, progress=progress)
        except JobFailedError:
            canceled = self.state is JobState.CANCELED
            if canceled or not any(case.state is JobState.SUCCEEDED for case in self.document.cases):
                raise
        return self.benchmark()

    def benchmark(self) -> Report:
        """Download the report of a benchmark that has ended.

        Raises:
            Conflict: If it still runs.
            NotFound: If the job is no benchmark.
        """
        return self._connection.send(calls.get_benchmark(self.id))

    def _progress(self, deadline: Deadline) -> Iterator[Event]:
        if not deadline.is_near:
            yield from self._follow(deadline)
        polls = 0
        while not self.refresh().state.is_terminal:
            deadline.check(self.document)
            yield from events_of(self.document)
            time.sleep(poll_pause_s(polls, deadline))
            polls += 1

    def _follow(self, deadline: Deadline) -> Iterator[Event]:
        following = Following(self._connection.policy)
        while not deadline.is_near:
            broken: ClientError | None = None
            try:
                for event in self._connection.events(calls.get_events(self.id, following.begin())):
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
                    if self.refresh().state.is_terminal:
                        yield from events_of(self.document)
                        return
                    broken = None
                except ClientError as error:
                    broken = error
            time.sleep(following.pause_s(broken))


class Jobs:
    """The service's jobs."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def submit(
        self, weights: object, pattern: str | Pattern, *, progress: bool | None = None, **options: Unpack[SubmitOptions]
    ) -> Job:
        """Upload weights and ask for their masks; returns as soon as the job is accepted.

        Args:
            weights: See `Client.solve`.
            pattern: See `Client.solve`.
            progress: Show a bar while uploading; None shows one on terminals and in notebooks.
            options: See `SubmitOptions`.

        Raises:
            InputError: If the input cannot be used; nothing was sent then.
        """
        submission = prepare(weights, pattern, **options)
        self._connection.send(calls.check_wire())
        try:
            document = self._submit(submission, progress)
        except StatusError as error:
            # What the service had when asked may have been cleaned up before the job arrived.
            if error.code not in calls.SENT_AGAIN:
                raise
            document = self._submit(submission, progress)
        return Job(self._connection, document, submission.skipped, submission.restore)

    def submit_benchmark(
        self,
        model: object = None,
        patterns: str | Iterable[object] = (),
        *,
        masks_of: str | None = None,
        **options: Unpack[BenchmarkOptions],
    ) -> Job:
        """Ask for a benchmark; returns as soon as the job is accepted. See `Client.benchmark`."""
        request = prepare_benchmark(model, patterns, masks_of=masks_of, **options)
        return self.submit_request(request)

    def submit_request(self, request: BenchmarkRequest) -> Job:
        """Ask for a benchmark whose document is ready."""
        self._connection.send(calls.check_wire())
        return Job(self._connection, self._connection.send(calls.post_benchmark(request, uuid4().hex)))

    def get(self, job: str) -> Job:
        """Find a job by its id.

        Raises:
            NotFound: If there is none.
        """
        return Job(self._connection, self._connection.send(calls.get_job(job)))

    def list(self, limit: int | None = None) -> Iterator[JobSummary]:
        """Go through all jobs, newest first; pages are fetched on the way."""
        pages = calls.Pages(limit, PAGE)
        while pages.left:
            yield from pages.take(self._connection.send(pages.call()))

    def cancel(self, job: str) -> Job:
        """Stop a job by its id; see `Job.cancel`."""
        return Job(self._connection, self._connection.send(calls.cancel_job(job)))

    def delete(self, job: str) -> None:
        """Forget a job by its id.

        Raises:
            NotFound: If there is none.
        """
        self._connection.send(calls.delete_job(job))

    def _submit(self, submission: Submission, progress: bool | None) -> Any:
        digests = upload(self._connection, submission, progress=progress)
        return self._connection.send(calls.post_job(submission.request(digests), submission.key))
