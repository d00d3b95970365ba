"""Placement of masks jobs in the queues of CPU and GPU workers."""

from datetime import UTC, datetime

import pytest
from support.shards import specified

from masksmith_state.jobs.placement import queue_for_masks_job
from masksmith_state.queue import CPU_QUEUE, GPU_QUEUE
from masksmith_wire.documents import WorkerInfo


def worker(queue: str) -> WorkerInfo:
    return WorkerInfo(
        name=queue, device="any", device_name="any", slots=1, queues=[queue], version="0", started_at=datetime.now(UTC)
    )


CPU, GPU = worker(CPU_QUEUE), worker(GPU_QUEUE)


@pytest.mark.parametrize(
    ("pattern", "solver", "workers", "queue"),
    [
        ("transposable 8:16", "auto", [CPU, GPU], GPU_QUEUE),
        ("transposable 8:16", "exact", [GPU], GPU_QUEUE),
        ("transposable 8:16", "exact", [CPU], CPU_QUEUE),
        ("transposable 8:16", "exact", [], CPU_QUEUE),
        ("transposable 8:16", "min-cost-flow", [CPU, GPU], CPU_QUEUE),
        ("2:4", "auto", [CPU, GPU], CPU_QUEUE),
        ("block 4x4 50%", "auto", [CPU, GPU], CPU_QUEUE),
        ("double 2:4", "auto", [CPU, GPU], CPU_QUEUE),
        ("2:4", "auto", [GPU], GPU_QUEUE),
    ],
)
def test_each_job_gets_the_queue_of_a_device_that_supports_it(pattern, solver, workers, queue):
    assert queue_for_masks_job(specified(pattern, solver=solver), workers) == queue


def test_a_gpu_worker_gets_a_job_of_which_it_supports_one_pattern():
    shared, coupled = specified("2:4"), specified("transposable 8:16").pattern
    assert queue_for_masks_job(shared, [CPU, GPU], [shared.pattern, coupled]) == GPU_QUEUE
    assert queue_for_masks_job(shared, [CPU, GPU], [shared.pattern]) == CPU_QUEUE
