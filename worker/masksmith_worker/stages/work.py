"""The input of the stages: a shard, its specification, and its limits."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from masksmith_state.blobs.store import BlobStore
from masksmith_state.jobs.shards import PlannedTensor, Shard
from masksmith_state.roots.roots import Roots
from masksmith_wire.specification import JobSpecification

from .load import InputReader


@dataclass(frozen=True)
class ShardWork:
    """A shard, and the data needed to solve it.

    Attributes:
        job: Id of the job.
        tensor: The tensor that contains the shard.
        shard: Rows of the tensor.
        specification: The job's specification, with the tensor's own pattern if it has one. In a job with a budget, the
            specification has the job's pattern until the budget is divided among the tensors; later stages get a
            `ShardWork` whose specification has the pattern that was chosen for the tensor.
        store: The blob store, with uploads and results.
        check: Called regularly; raises an error to stop the work.
        deadline: Value of `time.monotonic` at which the job's time limit ends, the same limit for all its shards; None
            without a limit.
        roots: Roots, with the files of tensors by reference.
    """

    job: str
    tensor: PlannedTensor
    shard: Shard
    specification: JobSpecification
    store: BlobStore
    check: Callable[[], None]
    deadline: float | None
    roots: Roots = field(default_factory=Roots)

    @property
    def inputs(self) -> InputReader:
        """Reader of the tensor, its statistics and its previous mask."""
        return InputReader(self.store, self.roots)

    @property
    def remaining_s(self) -> float | None:
        """Seconds until the deadline, at least 1e-9; None without a time limit."""
        return None if self.deadline is None else max(self.deadline - time.monotonic(), 1e-9)

    def on_progress(self, done: int, total: int) -> None:
        """Call `check`, whenever the library reports progress."""
        self.check()
