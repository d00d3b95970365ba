"""The unit of work that goes through the stages."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from masksmith_state.blobs.store import BlobStore
from masksmith_state.jobs.shards import PlannedTensor, Shard
from masksmith_wire.specification import JobSpecification


@dataclass(frozen=True)
class ShardWork:
    """A shard and what it takes to solve it.

    Attributes:
        job: Id of its job.
        tensor: Its tensor.
        shard: Its rows.
        specification: What is to be done; under a budget, with the tensor's own pattern once that is known.
        store: Uploads and results.
        check: Called now and then; what it raises stops the work.
        deadline: End of the job's time limit, which all its shards share, on the monotonic clock.
    """

    job: str
    tensor: PlannedTensor
    shard: Shard
    specification: JobSpecification
    store: BlobStore
    check: Callable[[], None]
    deadline: float | None

    @property
    def left_s(self) -> float | None:
        """What is left of the time limit; a solver always gets a moment."""
        return None if self.deadline is None else max(self.deadline - time.monotonic(), 1e-9)

    def on_progress(self, done: int, total: int) -> None:
        """Check whether to go on, as a progress callback of the library."""
        self.check()
