"""Base class of blocking and asyncio jobs: the job's last known document."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from masksmith_wire.documents import Job as JobDocument, JobState, Skipped, TensorReport

from ._notebook import job_html
from .submission.expected_tensor import ExpectedTensor
from .submission.streamed_tensor import Restore


class JobView:
    """A job's last known state.

    Args:
        document: The service's job document.
        skipped: Tensors that this client has not sent, with the reason.
        restore: Functions that convert results to the weights' framework and device, by name.
        requested: Shape, pattern and dtype that the results must have, for each weight that this client has sent, by
            name.
        notes: See the attribute `notes`.

    Attributes:
        document: The service's job document.
        notes: Notes on the weights' checkpoint, for the user; empty for jobs of other processes.
    """

    def __init__(
        self,
        document: JobDocument,
        skipped: Sequence[Skipped] = (),
        restore: Mapping[str, Restore] | None = None,
        requested: Mapping[str, ExpectedTensor] | None = None,
        notes: Sequence[str] = (),
    ) -> None:
        self.document, self.notes = document, tuple(notes)
        self._skipped = list(skipped)
        self._restore = restore or {}
        self._requested = requested or {}

    @property
    def id(self) -> str:
        """The job's id, for `client.jobs.get` and `masksmith jobs`."""
        return self.document.id

    @property
    def state(self) -> JobState:
        """The job's last known state."""
        return self.document.state

    @property
    def report(self) -> dict[str, TensorReport]:
        """The reports of the document's tensors, by name: objective, bound, gap, retained score, time, or the error."""
        return {report.name: report for report in self.document.tensors}

    @property
    def skipped(self) -> list[Skipped]:
        """Tensors that were not masked, with the reason; those that were not sent come first."""
        return [*self._skipped, *self.document.skipped]

    def _without_session(self) -> JobView:
        """Return a copy that can be pickled: it has neither the session of a `Job`, nor what only downloads need."""
        return JobView(self.document, self._skipped, notes=self.notes)

    def __repr__(self) -> str:
        progress = self.document.progress
        return f"<{type(self).__name__} {self.id} {self.state.value} {progress.done}/{progress.total}>"

    @property
    def _bar_label_and_total(self) -> tuple[str, int]:
        """Label and total of a progress bar."""
        return "solving" if self.document.kind == "masks" else "measuring", self.document.progress.total

    def _repr_html_(self) -> str:
        return job_html(self.document)
