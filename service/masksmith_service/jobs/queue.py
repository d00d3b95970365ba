"""Celery producer: enqueues shards by task name, without importing worker code."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import redis
from celery import Celery
from kombu.exceptions import OperationalError

from masksmith_state.queue import CPU_QUEUE, celery_settings, task_of


class Queue:
    """Enqueues shards for the workers.

    Args:
        redis_url: URL of the broker.
    """

    def __init__(self, redis_url: str) -> None:
        self._app = Celery("masksmith")
        self._app.conf.update(celery_settings(redis_url), broker_connection_max_retries=1)

    def enqueue(self, job: str, shard: int, queue: str = CPU_QUEUE) -> None:
        """Enqueue one shard.

        Raises:
            redis.ConnectionError: If the broker is unavailable; the sweeper enqueues the shard later.
        """
        with _translated_errors():
            self._app.send_task(task_of(queue), args=(job, shard), queue=queue, retry=False)

    def enqueue_all(self, job: str, shards: int, queue: str = CPU_QUEUE) -> None:
        """Enqueue all shards of a job, over one connection.

        Raises:
            redis.ConnectionError: If the broker is unavailable; the sweeper enqueues the shards later.
        """
        with _translated_errors(), self._app.producer_pool.acquire(block=True) as producer:
            for shard in range(shards):
                self._app.send_task(task_of(queue), args=(job, shard), queue=queue, retry=False, producer=producer)


@contextmanager
def _translated_errors() -> Iterator[None]:
    """Raise redis.ConnectionError in place of Celery's error, so that callers handle one type of broker error."""
    try:
        yield
    except OperationalError as error:
        raise redis.ConnectionError(str(error)) from None
