"""Has the masks of a checkpoint solved by a service: a job for each group of tensors, the next one sent ahead."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from masksmith.patterns import PatternsByTensor
from masksmith_client._errors import ClientError, StatusError, TransportError
from masksmith_client._jobs import Job, Jobs
from masksmith_client.submission.prepare import prepare
from masksmith_client.submission.streamed_tensor import StreamedTensor
from masksmith_wire.documents import TensorReport
from masksmith_wire.errors import Code
from masksmith_wire.scores import ScoreMethod

from .checkpoint import Checkpoint
from .choice import Choice
from .prune_options import PruneOptions, choice_options_of
from .pruning import parse_weight_scores, prune_model
from .solved import SolvedTensor, TensorToSolve

GROUP_BYTES = 2**30
"""Size of the weights of a job, which bounds what a run that is stopped has to download again."""


@dataclass(frozen=True)
class RemoteSolver:
    """Solves the tensors of a checkpoint by jobs of a service.

    Weights that the service has are not sent, and shards that it has solved are not solved again. Jobs that have not
    ended are canceled when the caller stops.

    Attributes:
        jobs: The service's jobs.
        scores: What the masks keep the most of.
        progress: Whether to show progress bars; None shows them on terminals and in notebooks.
        group_bytes: Size of the weights of a job.
    """

    jobs: Jobs
    scores: ScoreMethod
    progress: bool | None = None
    group_bytes: int = GROUP_BYTES

    @classmethod
    def checked(
        cls,
        jobs: Jobs,
        scores: ScoreMethod,
        checkpoint: Checkpoint,
        choice: Choice,
        progress: bool | None = None,
    ) -> RemoteSolver:
        """Make a solver, after checking that a service can take all masked tensors.

        Raises:
            InputError: If one of them is too large for a worker.
        """
        chosen = [TensorToSolve(tensor, checkpoint.weight(tensor.name)) for tensor in choice.masked]
        names = [tensor.chosen.name for tensor in chosen]
        prepare(_weights(chosen), _patterns(chosen), layers=names, scores=str(scores))
        return cls(jobs, scores, progress)

    def __call__(self, tensors: Iterator[TensorToSolve]) -> Generator[SolvedTensor]:
        """Yield the solved tensors, in the order of `tensors`.

        Raises:
            ClientError: If the service refuses or cannot be reached, or a tensor has no mask.
        """
        live: deque[tuple[Job, list[TensorToSolve]]] = deque()
        try:
            for group in _groups(tensors, self.group_bytes):
                while (job := self._submit(group, can_wait=bool(live))) is None:
                    yield from self._finish(live)
                live.append((job, group))
                if len(live) > 1:
                    yield from self._finish(live)
            while live:
                yield from self._finish(live)
        except TransportError:
            live.clear()  # They cannot be canceled at a service that is gone.
            raise
        finally:
            for job, _ in live:
                _cancel(job)

    def _submit(self, group: list[TensorToSolve], *, can_wait: bool) -> Job | None:
        """Upload a group and submit its job; None if one of our jobs has to end first."""
        names = [tensor.chosen.name for tensor in group]
        try:
            return self.jobs.submit(
                _weights(group), _patterns(group), layers=names, scores=str(self.scores), progress=self.progress
            )
        except StatusError as error:
            if can_wait and error.code == Code.TOO_MANY_JOBS:
                return None
            raise

    def _finish(self, live: deque[tuple[Job, list[TensorToSolve]]]) -> Iterator[SolvedTensor]:
        """Wait for the oldest job and yield its tensors; one mask is in memory at a time."""
        job, group = live[0]
        job.wait(progress=self.progress)
        reports = job.report
        with closing(job.masks()) as masks:
            live.popleft()
            for tensor in group:
                name = tensor.chosen.name
                mask = masks[name]
                yield SolvedTensor(name, mask, _certificate(reports[name], mask))
                del mask


def prune_by_service(
    jobs: Jobs,
    model: Path,
    output: Path,
    pattern: PatternsByTensor,
    progress: bool | None,
    options: PruneOptions,
) -> dict[str, Any]:
    """Write a pruned copy of a checkpoint; see `Client.prune`."""
    scores = parse_weight_scores(options.get("scores", "magnitude"))
    choice = choice_options_of(pattern, options)
    solver = partial(RemoteSolver.checked, jobs, scores, progress=progress)
    return prune_model(model, output, choice, scores, solver, progress=progress)


def _groups(tensors: Iterator[TensorToSolve], size: int) -> Iterator[list[TensorToSolve]]:
    group: list[TensorToSolve] = []
    group_bytes = 0
    for tensor in tensors:
        if group and group_bytes + tensor.source.data_bytes > size:
            yield group
            group, group_bytes = [], 0
        group.append(tensor)
        group_bytes += tensor.source.data_bytes
    if group:
        yield group


def _weights(tensors: Iterable[TensorToSolve]) -> dict[str, StreamedTensor]:
    return {
        each.chosen.name: StreamedTensor(
            each.chosen.name, each.source.dtype, each.source.shape, each.source.pieces, layout=each.chosen.layout
        )
        for each in tensors
    }


def _patterns(tensors: Iterable[TensorToSolve]) -> dict[str, Any]:
    return {tensor.chosen.name: tensor.chosen.pattern for tensor in tensors}


def _certificate(report: TensorReport, mask: npt.NDArray[np.bool_]) -> dict[str, Any]:
    """Give what a local solve says of a mask."""
    members = ("status", "objective", "upper_bound", "gap", "retained", "density")
    return {
        **{name: getattr(report, name) for name in members},
        "kept": int(np.count_nonzero(mask)),
        "solver": report.solver,
        "solve_s": report.solve_s,
    }


def _cancel(job: Job) -> None:
    if not job.state.is_terminal:
        with suppress(ClientError):
            job.cancel()
