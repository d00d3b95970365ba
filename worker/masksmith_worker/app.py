"""The worker's Celery application: its settings, its queue, and its main loop."""

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

from masksmith_state.queue import CPU_QUEUE, GPU_QUEUE, bench_queue, celery_settings, task_of

from . import transport
from .settings import Settings

RELEASE_SIGNAL = signal.SIGUSR2
"""Signal on which a pool process releases its shard; the main process sends it when the worker is stopped."""


def create_app(settings: Settings) -> Celery:
    """Install `transport`, and make the application: late acknowledgement, no prefetching, spawned processes."""
    transport.install()
    app = Celery("masksmith")
    app.conf.update(
        celery_settings(settings.redis_url),
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        task_acks_on_failure_or_timeout=True,
        task_default_queue=consumed_queue(settings),
        task_time_limit=settings.shard_limit_s,
        # Fetch no more messages than there are free processes. The prefetch multiplier is disabled, because its limit
        # counts unacknowledged messages: an acknowledgement that fails while the broker is down would block the worker.
        worker_disable_prefetch=True,
        worker_prefetch_multiplier=0,
        worker_concurrency=settings.slots,
        worker_pool="prefork",
        worker_pool_start_method="spawn",
        worker_max_tasks_per_child=1000,
        # A pool process may have to compile kernels while it starts, on a busy machine.
        worker_proc_alive_timeout=600.0,
        worker_hijack_root_logger=False,
        worker_enable_remote_control=False,
        worker_send_task_events=False,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        # A broker whose disk is full replies with errors until there is space: the worker must not exit.
        broker_channel_error_retry=True,
    )
    return app


def consumed_queue(settings: Settings) -> str:
    """The queue that a worker of this device and role consumes."""
    if settings.worker_role == "bench":
        return bench_queue(settings.worker_device)
    return CPU_QUEUE if settings.worker_device == "cpu" else GPU_QUEUE


def send_messages(app: Celery, queue: str, count: int) -> None:
    """Send `count` messages to a queue; each message makes a worker take one shard.

    Raises:
        redis.ConnectionError: If the broker is unavailable.
    """
    try:
        # By default Celery copies the time limit of this process's task into the message. The worker that receives the
        # message must apply its own limit instead.
        for _ in range(count):
            app.send_task(task_of(queue), queue=queue, time_limit=None, soft_time_limit=None)
    except OperationalError as error:
        raise redis.ConnectionError(str(error)) from None


def run(app: Celery, settings: Settings, on_ready: Callable[[Any], None], on_stop: Callable[[], None]) -> None:
    """Run the worker until a stop signal has ended it.

    Args:
        app: The application.
        settings: Settings of the worker.
        on_ready: Called with the pool once the worker consumes messages.
        on_stop: Called in the signal handler of a stop signal; it must not block.
    """
    # Two warnings of Celery do not apply: it warns root users because of pickle, which this worker does not accept; and
    # when the connection to the broker is lost, it warns that running tasks continue, which is intended.
    for category in (SecurityWarning, CPendingDeprecationWarning):
        warnings.filterwarnings("ignore", category=category)
    worker_ready.connect(lambda sender, **_: on_ready(sender.pool), weak=False)
    worker_shutting_down.connect(lambda **_: on_stop(), weak=False)
    app.worker_main(
        ["worker", f"--hostname={settings.worker_name}@masksmith", f"--queues={consumed_queue(settings)}",
         "--without-gossip", "--without-mingle", "--without-heartbeat", f"--loglevel={settings.log_level}"]
    )  # fmt: skip
