"""Queue and task names, and the broker settings that every side must share."""

from __future__ import annotations

from typing import Any

CPU_QUEUE = "masksmith.cpu"
GPU_QUEUE = "masksmith.gpu"
BENCH_CPU_QUEUE = "masksmith.bench.cpu"
BENCH_GPU_QUEUE = "masksmith.bench.gpu"
BENCH_QUEUES = frozenset({BENCH_CPU_QUEUE, BENCH_GPU_QUEUE})
QUEUES = (CPU_QUEUE, GPU_QUEUE, BENCH_CPU_QUEUE, BENCH_GPU_QUEUE)
SHARD_TASK = "masksmith.solve_shard"
CASE_TASK = "masksmith.measure_case"

# The Redis transport redelivers what is unacknowledged for longer than this and knows no renewal: it must exceed every
# time limit. Shards that really got lost come back within seconds through their leases.
VISIBILITY_TIMEOUT_S = 4 * 3600


def task_of(queue: str) -> str:
    """Name the task that a queue's messages are for."""
    return CASE_TASK if queue in BENCH_QUEUES else SHARD_TASK


def bench_queue(device: str) -> str:
    """Name the queue of what is to be measured on a device."""
    return BENCH_CPU_QUEUE if device == "cpu" else BENCH_GPU_QUEUE


def transport_options() -> dict[str, Any]:
    """Options of the Redis transport; the shortest visibility timeout of any app on a broker wins, so all share it."""
    return {
        "visibility_timeout": VISIBILITY_TIMEOUT_S,
        "unacked_restore_interval": 10,
        "unacked_restore_throttle": 1,
        "socket_connect_timeout": 3,
        "socket_timeout": 10,
        "health_check_interval": 10,
    }


def broker_url(redis_url: str) -> str:
    """Give Celery's spelling of a Redis URL: unix sockets have a scheme of their own there."""
    if redis_url.startswith("unix://"):
        return "redis+socket://" + redis_url.removeprefix("unix://")
    return redis_url
