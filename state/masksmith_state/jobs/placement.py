"""Chooses the queue of a masks job: the GPU queue if a GPU worker is alive and supports the job, else the CPU queue."""

from __future__ import annotations

from collections.abc import Iterable

from masksmith.patterns import Pattern, TilePattern
from masksmith_state.queue import CPU_QUEUE, GPU_QUEUE
from masksmith_wire.documents import WorkerInfo
from masksmith_wire.specification import JobSpecification

GPU_SOLVERS = frozenset({"auto", "exact", "greedy", "sinkhorn"})


def queue_for_masks_job(
    specification: JobSpecification, workers: Iterable[WorkerInfo], patterns: Iterable[Pattern] = ()
) -> str:
    """Choose the queue of a masks job.

    GPU workers solve patterns that constrain both rows and columns of a tile, by the solvers that run on a GPU. If
    only GPU workers are alive, they get every job, and solve on their CPU what their GPU does not support.

    Args:
        specification: The job's specification.
        workers: The live workers.
        patterns: The patterns of the tensors, if some tensors have their own; GPU workers get the job if their GPU
            supports one of the patterns. By default the pattern of the job.
    """
    queues = queues_with_workers(workers)
    patterns = list(patterns) or [specification.pattern]
    is_coupled = any(isinstance(pattern, TilePattern) and not pattern.tile.separable for pattern in patterns)
    runs_on_gpu = is_coupled and specification.options.solver in GPU_SOLVERS
    if GPU_QUEUE in queues and (runs_on_gpu or CPU_QUEUE not in queues):
        return GPU_QUEUE
    return CPU_QUEUE


def queues_with_workers(workers: Iterable[WorkerInfo]) -> set[str]:
    """Queues that have a live worker."""
    return {queue for worker in workers for queue in worker.queues}
