"""The producing side of the queue: shards are enqueued by task name; no worker code is imported."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import redis
from celery import Celery
from kombu.exceptions import OperationalError

from masksmith_state.queue import CPU_QUEUE, broker_url, task_of, transport_options


class Queue:
    """Puts shards into the workers' queue.

    Args:
        redis_url: The broker.
    """

    def __init__(self, redis_url: str) -> None:
        self._app = Celery("masksmith", broker=broker_url(redis_url))
        self._app.conf.update(
            task_serializer="json",
            accept_content=["json"],
            task_ignore_result=True,
            task_create_missing_queues=True,
            broker_transport_options=transport_options(),
            broker_connection_max_retries=1,
        )

    def enqueue(self, job: str, shard: int, queue: str = CPU_QUEUE) -> None:
        """Put one shard into a queue.

        Raises:
            redis.ConnectionError: If the broker is away; the sweeper makes good for it.
        """
        with _one_kind_of_error():
            self._app.send_task(task_of(queue), args=(job, shard), queue=queue, retry=False)

    def enqueue_all(self, job: str, shards: int, queue: str = CPU_QUEUE) -> None:
        """Put a job's shards into a queue, over one connection.

        Raises:
            redis.ConnectionError: If the broker is away; the sweeper makes good for it.
        """
        with _one_kind_of_error(), self._app.producer_pool.acquire(block=True) as producer:
            for shard in range(shards):
                self._app.send_task(task_of(queue), args=(job, shard), queue=queue, retry=False, producer=producer)


@contextmanager
def _one_kind_of_error() -> Iterator[None]:
    """Let callers see an absent broker as records see it, whichever library met it."""
    try:
        yield
    except OperationalError as error:
        raise redis.ConnectionError(str(error)) from None
