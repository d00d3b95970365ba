"""Chooses the queue of a masks job: the GPU queue if a GPU worker is alive and supports the job, else the CPU queue."""

from __future__ import annotations

from collections.abc import Iterable

from masksmith.patterns import Pattern, TilePattern
from masksmith_state.queue import CPU_QUEUE, GPU_QUEUE
from masksmith_wire.documents import WorkerInfo
from masksmith_wire.specification import JobSpecification

GPU_SOLVERS = frozenset({"auto", "exact", "greedy", "sinkhorn"})


def search_queue(
    specification: JobSpecification, workers: Iterable[WorkerInfo], patterns: Iterable[Pattern] = ()
) -> str:
    """Choose the queue of a masks job.

    GPU workers solve patterns that constrain both rows and columns of a tile, by the solvers that run on a GPU. If
    there are only GPU workers, they get every job and solve it on their CPU. `patterns` are the tensors' own, if the
    job's is not that of all of them; a GPU worker gets the job if it supports one of them.
    """
    queues, patterns = queues_with_workers(workers), list(patterns) or [specification.pattern]
    is_coupled = any(isinstance(pattern, TilePattern) and not pattern.tile.separable for pattern in patterns)
    runs_on_gpu = is_coupled and specification.options.solver in GPU_SOLVERS
    return GPU_QUEUE if GPU_QUEUE in queues and (runs_on_gpu or CPU_QUEUE not in queues) else CPU_QUEUE


def queues_with_workers(workers: Iterable[WorkerInfo]) -> set[str]:
    """Queues that have a live worker."""
    return {queue for worker in workers for queue in worker.queues}
