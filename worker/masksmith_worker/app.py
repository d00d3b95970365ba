"""The Celery application of the workers."""

from __future__ import annotations

import signal
import warnings
from collections.abc import Callable
from typing import Any

import redis
from celery import Celery
from celery.exceptions import CPendingDeprecationWarning, SecurityWarning
from celery.signals import worker_ready, worker_shutting_down
from kombu.exceptions import OperationalError

from masksmith_state.queue import CPU_QUEUE, GPU_QUEUE, bench_queue, broker_url, task_of, transport_options

from .settings import Settings

STOP_SIGNAL = signal.SIGUSR2
"""Signal on which a pool process gives its shard back."""


def create_app(settings: Settings) -> Celery:
    """Make the application: late acknowledgement, no prefetch, spawned children, ids through the broker only."""
    app = Celery("masksmith", broker=broker_url(settings.redis_url))
    app.conf.update(
        task_serializer="json",
        accept_content=["json"],
        task_ignore_result=True,
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        task_acks_on_failure_or_timeout=True,
        task_default_queue=own_queue(settings),
        task_create_missing_queues=True,
        task_time_limit=settings.shard_limit_s,
        # No more messages than free processes. The multiplier's own limit is off: it counts what is not acknowledged,
        # and an acknowledgement that fails, while the broker is away, would block the worker for good.
        worker_disable_prefetch=True,
        worker_prefetch_multiplier=0,
        worker_concurrency=settings.slots,
        worker_pool="prefork",
        worker_pool_start_method="spawn",
        worker_max_tasks_per_child=1000,
        # Until a pool process is up it may have to compile the kernels, on a machine that has other things to do.
        worker_proc_alive_timeout=600.0,
        worker_hijack_root_logger=False,
        worker_enable_remote_control=False,
        worker_send_task_events=False,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        # A broker whose disk is full answers with errors for a while: that is no reason to end.
        broker_channel_error_retry=True,
        broker_transport_options=transport_options(),
    )
    return app


def own_queue(settings: Settings) -> str:
    """The queue that a worker of this device and role drains."""
    if settings.worker_role == "bench":
        return bench_queue(settings.worker_device)
    return CPU_QUEUE if settings.worker_device == "cpu" else GPU_QUEUE


def enqueue(app: Celery, job: str, shard: int, queue: str) -> None:
    """Put a shard into a queue.

    Raises:
        redis.ConnectionError: If the broker is away.
    """
    try:
        app.send_task(task_of(queue), args=(job, shard), queue=queue)
    except OperationalError as error:
        raise redis.ConnectionError(str(error)) from None


def run(app: Celery, settings: Settings, on_ready: Callable[[Any], None], on_stop: Callable[[], None]) -> None:
    """Work until a signal to stop.

    Args:
        app: The application.
        settings: Name, device, log level.
        on_ready: Called with the pool once the worker listens.
        on_stop: Called inside the signal handler when the worker is to stop: it must not block.
    """
    # Celery warns of root for the sake of pickle, which this worker does not accept; and, when the broker goes away, of
    # tasks that go on meanwhile, which is just what they shall do.
    for category in (SecurityWarning, CPendingDeprecationWarning):
        warnings.filterwarnings("ignore", category=category)
    worker_ready.connect(lambda sender, **_: on_ready(sender.pool), weak=False)
    worker_shutting_down.connect(lambda **_: on_stop(), weak=False)
    app.worker_main(
        ["worker", f"--hostname={settings.worker_name}@masksmith", f"--queues={own_queue(settings)}",
         "--without-gossip", "--without-mingle", "--without-heartbeat", f"--loglevel={settings.log_level}"]
    )  # fmt: skip
