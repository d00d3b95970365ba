"""Celery producer: sends messages by task name, without importing worker code."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import redis
from celery import Celery
from kombu.exceptions import OperationalError

from masksmith_state.queue import celery_settings, task_of


class MessageProducer:
    """Sends messages to queues of workers.

    Args:
        redis_url: URL of the broker.
    """

    def __init__(self, redis_url: str) -> None:
        self._app = Celery("masksmith")
        self._app.conf.update(celery_settings(redis_url), broker_connection_max_retries=1)

    def send_messages(self, queue: str, count: int) -> None:
        """Send messages to a queue; each message makes a worker take one shard or benchmark case, if any is queued.

        Raises:
            redis.ConnectionError: If the broker is unavailable; the sweeper sends the missing messages later.
        """
        with _translated_errors(), self._app.producer_pool.acquire(block=True) as producer:
            for _ in range(count):
                self._app.send_task(task_of(queue), queue=queue, retry=False, producer=producer)


@contextmanager
def _translated_errors() -> Iterator[None]:
    """Raise redis.ConnectionError in place of kombu's OperationalError, so that callers handle one type of error."""
    try:
        yield
    except OperationalError as error:
        raise redis.ConnectionError(str(error)) from None
