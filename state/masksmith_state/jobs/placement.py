"""Which queue a search goes to: that of the GPU workers, if one is alive and the job suits it."""

from __future__ import annotations

from collections.abc import Iterable

from masksmith.patterns import TilePattern
from masksmith_state.queue import CPU_QUEUE, GPU_QUEUE
from masksmith_wire.documents import WorkerInfo
from masksmith_wire.specification import JobSpecification

DEVICE_SOLVERS = frozenset({"auto", "exact", "greedy", "sinkhorn"})


def search_queue(specification: JobSpecification, workers: Iterable[WorkerInfo]) -> str:
    """Choose the queue of a masks job: devices take tiles whose rows and columns are bound, by solvers that run there.

    Where there are no other workers, GPU workers take everything; they have processors too.
    """
    drained, pattern = drained_by(workers), specification.pattern
    is_bound = isinstance(pattern, TilePattern) and not pattern.tile.separable
    suits = is_bound and specification.options.solver in DEVICE_SOLVERS
    return GPU_QUEUE if GPU_QUEUE in drained and (suits or CPU_QUEUE not in drained) else CPU_QUEUE


def drained_by(workers: Iterable[WorkerInfo]) -> set[str]:
    """Return the queues that have a live worker."""
    return {queue for worker in workers for queue in worker.queues}
