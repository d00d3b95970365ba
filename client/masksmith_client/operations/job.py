"""What can be done with one job."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from masksmith.benchmark import Report
from masksmith_client._errors import JobFailedError
from masksmith_client._job_view import JobView
from masksmith_client._progress import Bar
from masksmith_client.results.masks import Masks
from masksmith_client.results.updated_weights import UpdatedWeights
from masksmith_client.transport import calls as calls
from masksmith_client.transport.effects import Operation, tapped
from masksmith_client.transport.events import Deadline, Event
from masksmith_client.transport.session import Session
from masksmith_wire.documents import JobState

from .following import follow, refresh, watch

Listener = Callable[[Event], None]


@dataclass(frozen=True, slots=True)
class JobOperations:
    """Operations on jobs of one service; `Job` says what each does and raises."""

    session: Session

    def refresh(self, job: JobView) -> Operation[None]:
        """Read the job's document again."""
        return refresh(self.session, job)

    def cancel(self, job: JobView) -> Operation[None]:
        """Stop the job."""
        job.document = yield from self.session.send(calls.cancel_job(job.id))

    def delete(self, job: JobView) -> Operation[None]:
        """Delete the job and its results."""
        return self.session.send(calls.delete_job(job.id))

    def events(self, job: JobView) -> Operation[None]:
        """Emit the job's events until it has ended."""
        return follow(self.session, job, Deadline(None))

    def wait(
        self, job: JobView, timeout_s: float | None, progress: bool | None, on_event: Listener | None = None
    ) -> Operation[None]:
        """Wait for the end; a failed job is an error."""
        with Bar(*job._work, show=progress) as bar:

            def listener(event: Event) -> None:
                bar.on_event(event)
                if on_event is not None:
                    on_event(event)

            yield from tapped(watch(self.session, job, Deadline(timeout_s)), listener)
        if job.state in (JobState.FAILED, JobState.CANCELED):
            raise JobFailedError(job)

    def masks(self, job: JobView) -> Operation[Masks]:
        """Download the masks."""
        file = yield from self.session.download(calls.get_masks(job.id))
        return Masks(file, job, job._restore)

    def weights(self, job: JobView) -> Operation[UpdatedWeights]:
        """Download the updated weights."""
        file = yield from self.session.download(calls.get_weights(job.id))
        return UpdatedWeights(file, job._restore)

    def wait_for_report(self, job: JobView, timeout_s: float | None, progress: bool | None) -> Operation[Report]:
        """Wait for the end of a benchmark and download its report, also where some of its cases failed."""
        try:
            yield from self.wait(job, timeout_s, progress)
        except JobFailedError:
            canceled = job.state is JobState.CANCELED
            if canceled or not any(case.state is JobState.SUCCEEDED for case in job.document.cases):
                raise
        return (yield from self.benchmark(job))

    def benchmark(self, job: JobView) -> Operation[Report]:
        """Download the report of a benchmark."""
        return self.session.send(calls.get_benchmark(job.id))
