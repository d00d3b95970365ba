"""The input of the stages: a shard, its specification, and its limits."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from masksmith_state.blobs.store import BlobStore
from masksmith_state.jobs.shards import PlannedTensor, Shard
from masksmith_state.roots.roots import Roots
from masksmith_wire.specification import JobSpecification

from .load import Inputs


@dataclass(frozen=True)
class ShardWork:
    """A shard, and the data needed to solve it.

    Attributes:
        job: Id of its job.
        tensor: Its tensor.
        shard: Its rows.
        specification: The job's specification with the tensor's own pattern; under a budget, once that is known.
        store: Uploads and results.
        roots: Files of tensors by reference.
        check: Called regularly; raises an error to stop the work.
        deadline: Monotonic time at which the job's time limit ends, which all of its shards share.
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
    def inputs(self) -> Inputs:
        """What its tensors are read from."""
        return Inputs(self.store, self.roots)

    @property
    def remaining_s(self) -> float | None:
        """Seconds until the deadline, at least 1e-9; None without a time limit."""
        return None if self.deadline is None else max(self.deadline - time.monotonic(), 1e-9)

    def on_progress(self, done: int, total: int) -> None:
        """Progress callback for the library, which calls `check`."""
        self.check()
