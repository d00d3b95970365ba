"""Chooses the queue of a masks job: the GPU queue or the CPU queue."""

from __future__ import annotations

from collections.abc import Iterable

from masksmith.patterns import DoublePruned, Pattern, TilePattern
from masksmith_state.queue import CPU_QUEUE, GPU_QUEUE
from masksmith_wire.documents import WorkerInfo
from masksmith_wire.specification import JobSpecification

GPU_SOLVERS = frozenset({"auto", "exact", "greedy", "sinkhorn"})


def queue_for_masks_job(
    specification: JobSpecification, workers: Iterable[WorkerInfo], patterns: Iterable[Pattern] = ()
) -> str:
    """Choose the queue of a masks job.

    A GPU supports patterns that constrain both rows and columns of a tile, except double pruning, with the solvers of
    `GPU_SOLVERS`. If a GPU worker is alive, jobs that a GPU supports are for the GPU queue; all others are for the CPU
    queue. If only GPU workers are alive, every job is for the GPU queue, and these workers solve on their CPU what
    their GPU does not support.

    Args:
        specification: The job's specification.
        workers: The live workers.
        patterns: The patterns of the tensors, if some tensors have their own; a GPU supports the job if it supports
            at least one of them; the worker solves the others on its CPU. By default the pattern of the job.
    """
    queues = queues_with_workers(workers)
    patterns = list(patterns) or [specification.pattern]
    gpu_supports_pattern = any(
        isinstance(pattern, TilePattern) and not pattern.tile.separable and not isinstance(pattern, DoublePruned)
        for pattern in patterns
    )
    gpu_supports_job = gpu_supports_pattern and specification.options.solver in GPU_SOLVERS
    if GPU_QUEUE in queues and (gpu_supports_job or CPU_QUEUE not in queues):
        return GPU_QUEUE
    return CPU_QUEUE


def queues_with_workers(workers: Iterable[WorkerInfo]) -> set[str]:
    """Queues that have a live worker."""
    return {queue for worker in workers for queue in worker.queues}
