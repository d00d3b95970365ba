"""Solves the masks of a checkpoint by a service, with one job for each group of tensors.

The job of the next group is submitted while the job before it runs.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from masksmith.layouts import WHOLE_BYTES
from masksmith.patterns import PatternsByTensor
from masksmith_client._errors import ClientError, InputError, StatusError, TransportError, WireError
from masksmith_client._jobs import Job, Jobs
from masksmith_client._progress import ShowProgress
from masksmith_client.results.masks import Masks
from masksmith_client.results.updated_weights import UpdatedWeights
from masksmith_client.submission.description import describe, subject_of_weights
from masksmith_client.submission.options import SubmitOptions
from masksmith_client.submission.prepare import prepare
from masksmith_client.submission.statistics import AuxiliaryTensors
from masksmith_client.submission.streamed_tensor import StreamedTensor
from masksmith_wire.documents import TensorReport
from masksmith_wire.errors import Code
from masksmith_wire.names import default_name
from masksmith_wire.priorities import Priority, PriorityName
from masksmith_wire.pruned_record import update_record
from masksmith_wire.quantities import size_text
from masksmith_wire.updates import UpdateMethod

from .checkpoint import Checkpoint
from .choice import Choice
from .prune_method import PruneMethod, weight_of
from .prune_options import PruneOptions, choice_options_of
from .pruning import prune_model
from .solved import SolvedTensor, TensorToSolve

GROUP_BYTES = 2**30
"""Maximum size of a job's weights, statistics and Gram matrices, unless those of a single tensor are larger. It limits
what is downloaded again after an interruption: the results of the jobs that were not completely downloaded before."""


@dataclass(frozen=True)
class RemoteSolver:
    """Solves the tensors of a checkpoint by jobs of a service.

    Weights that the service has are not sent, and shards that it has solved are not solved again. If the caller
    stops early, or on an error, unfinished jobs are canceled, unless the service cannot be reached.

    Attributes:
        jobs: The service's jobs.
        method: Scores and update.
        progress: Whether to show progress bars; None shows them on terminals and in notebooks.
        group_bytes: Maximum size of a job's data; see `GROUP_BYTES`.
        name: Name of the jobs; if None, the service names them.
        labels: Labels of the jobs.
        priority: Priority of the jobs.
        on_submit: Called with every submitted job.
    """

    jobs: Jobs
    method: PruneMethod
    progress: ShowProgress = None
    group_bytes: int = GROUP_BYTES
    name: str | None = None
    labels: Mapping[str, str] | None = None
    priority: Priority = Priority.BATCH
    on_submit: Callable[[Job], None] = lambda _: None

    @classmethod
    def checked(
        cls,
        jobs: Jobs,
        method: PruneMethod,
        checkpoint: Checkpoint,
        choice: Choice,
        statistics: AuxiliaryTensors,
        progress: ShowProgress = None,
        *,
        name: str | None = None,
        labels: Mapping[str, str] | None = None,
        priority: PriorityName = "batch",
        on_submit: Callable[[Job], None] = lambda _: None,
    ) -> RemoteSolver:
        """Make a solver, after the checks of options and masked tensors that the submission of a job makes, too.

        Without a name, jobs are named after the checkpoint and the patterns.

        Raises:
            InputError: If an argument is invalid, or a tensor or its statistic is too large for a worker.
        """
        description = describe(name, labels, priority)
        tensors = [TensorToSolve(tensor, checkpoint.weight(tensor.name)) for tensor in choice.masked_tensors]
        _check_activations(statistics)
        prepare(_weights(tensors), _patterns(tensors), **_options(tensors, method, statistics))
        subject = subject_of_weights(checkpoint.path) or ""
        job_name = default_name(subject, ", ".join(dict.fromkeys(map(str, _patterns(tensors).values()))))
        return cls(
            jobs,
            method,
            progress,
            name=description.name or job_name,
            labels=description.labels,
            priority=description.priority,
            on_submit=on_submit,
        )

    def __call__(self, tensors: Iterator[TensorToSolve]) -> Generator[SolvedTensor]:
        """Yield the solved tensors, in the order of `tensors`.

        Raises:
            ClientError: If the service refuses or cannot be reached, or a tensor has no mask.
        """
        running_jobs: deque[tuple[Job, list[TensorToSolve]]] = deque()
        try:
            for group in _groups(tensors, self.group_bytes):
                while (job := self._submit(group, can_wait=bool(running_jobs))) is None:
                    yield from self._finish(running_jobs)
                running_jobs.append((job, group))
                if len(running_jobs) > 1:
                    yield from self._finish(running_jobs)
            while running_jobs:
                yield from self._finish(running_jobs)
        except TransportError as error:
            # A `WireError` is about a response that arrived. With any other `TransportError` the service counts as
            # unreachable, so no job is canceled.
            if not isinstance(error, WireError):
                running_jobs.clear()
            raise
        finally:
            for job, _ in running_jobs:
                _cancel(job)

    def _submit(self, group: list[TensorToSolve], *, can_wait: bool) -> Job | None:
        """Upload a group and submit its job.

        Returns:
            The job. None if the key or the service has as many live jobs as allowed, and `can_wait` is True: then an
            earlier job of this run must end first. Without an earlier job, the refusal is raised.
        """
        options = _options(group, self.method, _statistics(group))
        options |= {"name": self.name, "labels": self.labels, "priority": self.priority.value}
        try:
            job = self.jobs.submit(_weights(group), _patterns(group), progress=self.progress, **options)
        except StatusError as error:
            if can_wait and error.code == Code.TOO_MANY_JOBS:
                return None
            raise
        self.on_submit(job)
        return job

    def _finish(self, running_jobs: deque[tuple[Job, list[TensorToSolve]]]) -> Iterator[SolvedTensor]:
        """Wait for the oldest job, remove it from `running_jobs`, and yield its tensors; one mask is in memory."""
        job, group = running_jobs[0]
        job.wait(progress=self.progress)
        reports = job.report
        with closing(job.masks()) as masks, self._opened_updates(job, masks) as weights:
            running_jobs.popleft()
            for tensor in group:
                name = tensor.chosen.name
                mask = masks[name]
                certificate = _certificate(reports[name], mask, self.method.update)
                yield SolvedTensor(name, mask, certificate, None if weights is None else weights.data(name))
                del mask

    @contextmanager
    def _opened_updates(self, job: Job, masks: Masks) -> Iterator[UpdatedWeights | None]:
        """Download the updated weights, and close them in the end; None without an update."""
        if self.method.update is None:
            yield None
            return
        with closing(job.weights(masks)) as weights:
            yield weights


def prune_by_service(
    jobs: Jobs,
    model: Path,
    output: Path,
    pattern: PatternsByTensor,
    progress: ShowProgress,
    options: PruneOptions,
) -> dict[str, Any]:
    """Write a pruned copy of a checkpoint; see `Client.prune`."""
    method = PruneMethod.parse(options.get("scores", "magnitude"), options.get("update"), options.get("calibration"))
    choice_options = choice_options_of(pattern, options)
    make_solver = partial(
        RemoteSolver.checked,
        jobs,
        method,
        progress=progress,
        name=options.get("name"),
        labels=options.get("labels"),
        priority=options.get("priority", "batch"),
    )
    return prune_model(model, output, choice_options, method, make_solver, progress=progress)


def _groups(tensors: Iterator[TensorToSolve], max_bytes: int) -> Iterator[list[TensorToSolve]]:
    """Yield groups of consecutive tensors with at most `max_bytes` of data; a tensor with more is a group alone."""
    group: list[TensorToSolve] = []
    group_bytes = 0
    for tensor in tensors:
        if group and group_bytes + tensor.data_bytes > max_bytes:
            yield group
            group, group_bytes = [], 0
        group.append(tensor)
        group_bytes += tensor.data_bytes
    if group:
        yield group


def _weights(tensors: Iterable[TensorToSolve]) -> dict[str, StreamedTensor]:
    return {tensor.chosen.name: weight_of(tensor.chosen, tensor.source) for tensor in tensors}


def _patterns(tensors: Iterable[TensorToSolve]) -> dict[str, Any]:
    return {tensor.chosen.name: tensor.chosen.pattern for tensor in tensors}


def _statistics(tensors: Iterable[TensorToSolve]) -> AuxiliaryTensors:
    auxiliary = AuxiliaryTensors()
    for tensor in tensors:
        if tensor.statistic is not None:
            auxiliary.statistics[tensor.chosen.name] = tensor.statistic
        if tensor.gram is not None:
            auxiliary.grams[tensor.chosen.name] = tensor.gram
    return auxiliary


def _options(tensors: Iterable[TensorToSolve], method: PruneMethod, statistics: AuxiliaryTensors) -> SubmitOptions:
    update = None if method.update is None else str(method.update)
    return {
        "layers": [tensor.chosen.name for tensor in tensors],
        "scores": str(method.scores),
        "update": update,
        "calibration": statistics if statistics.tensors else None,
    }


def _check_activations(statistics: AuxiliaryTensors) -> None:
    """Raise `InputError` for activations of more than `WHOLE_BYTES`: a worker needs them as a whole."""
    for tensor in statistics.tensors:
        if tensor.name.endswith("/activations") and tensor.data_bytes > WHOLE_BYTES:
            raise InputError(
                f"{tensor.name!r} has {size_text(tensor.data_bytes)}, more than the {size_text(WHOLE_BYTES)} that go "
                "to one worker: use 'masksmith prune --local', or leave the tensor out with exclude="
            )


def _certificate(report: TensorReport, mask: npt.NDArray[np.bool_], update: UpdateMethod | None) -> dict[str, Any]:
    """Return the certificate of a mask, with the same members as that of a local solve."""
    members = ("status", "objective", "upper_bound", "gap", "retained", "density")
    return {
        **{name: getattr(report, name) for name in members},
        "kept": int(np.count_nonzero(mask)),
        "solver": report.solver,
        "solve_s": report.solve_s,
        **({} if update is None or report.update is None else {"update": update_record(update, report.update)}),
    }


def _cancel(job: Job) -> None:
    """Cancel a job that is not known to have ended; a refusal or a failure is ignored."""
    if not job.state.is_terminal:
        with suppress(ClientError):
            job.cancel()
