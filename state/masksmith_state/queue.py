"""Names of queues and tasks, and the Celery settings that producers and workers must share."""

from __future__ import annotations

from typing import Any, Literal
from urllib.parse import parse_qsl, quote, urlencode

CPU_QUEUE = "masksmith.cpu"
GPU_QUEUE = "masksmith.gpu"
BENCH_CPU_QUEUE = "masksmith.bench.cpu"
BENCH_GPU_QUEUE = "masksmith.bench.gpu"
BENCH_QUEUES = frozenset({BENCH_CPU_QUEUE, BENCH_GPU_QUEUE})
QUEUES = (CPU_QUEUE, GPU_QUEUE, BENCH_CPU_QUEUE, BENCH_GPU_QUEUE)
SHARD_TASK = "masksmith.solve_shard"
CASE_TASK = "masksmith.measure_case"

VISIBILITY_TIMEOUT_S = 4 * 3600
"""Seconds after which the Redis transport delivers an unacknowledged message again.

A task cannot extend this time, so the time must exceed every time limit of tasks. The shards of a dead worker
do not wait so long: their leases expire, and within seconds they are queued again.
"""


def role_and_device(queue: str) -> tuple[Literal["search", "bench"], Literal["cpu", "cuda"]]:
    """Role and device of the workers that consume a queue."""
    role: Literal["search", "bench"] = "bench" if queue in BENCH_QUEUES else "search"
    device: Literal["cpu", "cuda"] = "cpu" if queue in (CPU_QUEUE, BENCH_CPU_QUEUE) else "cuda"
    return role, device


def task_of(queue: str) -> str:
    """Name of the task that a message of a queue starts."""
    return CASE_TASK if queue in BENCH_QUEUES else SHARD_TASK


def bench_queue(device: str) -> str:
    """Queue of the benchmark cases for a device."""
    return BENCH_CPU_QUEUE if device == "cpu" else BENCH_GPU_QUEUE


def celery_settings(redis_url: str) -> dict[str, Any]:
    """Celery settings that producers and workers have in common.

    The visibility timeout must be the same in all applications on a broker: the shortest one takes effect for all.
    """
    return {
        "broker_url": broker_url(redis_url),
        "broker_transport_options": {
            "visibility_timeout": VISIBILITY_TIMEOUT_S,
            # Look every 10 s for messages to deliver again; with the default throttle, 10, it would be every 100 s.
            "unacked_restore_interval": 10,
            "unacked_restore_throttle": 1,
            "socket_connect_timeout": 3,
            "socket_timeout": 10,
            "health_check_interval": 10,
        },
        "task_serializer": "json",
        "accept_content": ["json"],
        "task_ignore_result": True,
        "task_create_missing_queues": True,
    }


def broker_url(redis_url: str) -> str:
    """Convert a Redis URL to Celery's form.

    Only URLs of unix sockets are changed: `redis+socket://` instead of `unix://`, and `virtual_host` instead of `db`.
    Celery ignores `username` and `password` among the options, so they are written before the path.
    """
    if not redis_url.startswith("unix://"):
        return redis_url
    address, mark, query = redis_url.removeprefix("unix://").partition("?")
    # Celery ignores `db`. If it stayed, two installations with two databases of one server would share their queues.
    options = dict(parse_qsl(query))
    user, password = options.pop("username", ""), options.pop("password", "")
    if user or password:
        userinfo, _, path = address.rpartition("@")
        address_user, _, address_password = userinfo.partition(":")
        address = f"{address_user or quote(user, safe='')}:{address_password or quote(password, safe='')}@{path}"
    renamed = {"virtual_host" if name == "db" else name: value for name, value in options.items()}
    return f"redis+socket://{address}{mark if renamed else ''}{urlencode(renamed)}"
