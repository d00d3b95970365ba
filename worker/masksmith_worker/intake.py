"""Takes shards from the queue of a worker, and sends messages so that other workers take further shards."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

import redis

from masksmith_state.jobs.model import Lease
from masksmith_state.jobs.schedule import Schedule
from masksmith_state.queue import CPU_QUEUE

log = logging.getLogger(__name__)


def _send_nothing(queue: str, count: int) -> None:
    """Send no messages: the default, for a worker that is not started by messages."""


@dataclass(frozen=True)
class Intake:
    """The source of a worker's shards.

    Attributes:
        queue: Queue that the worker consumes.
        worker: Name of the worker.
        slots: Number of shards that the worker processes at the same time.
        send_messages: Sends messages to a queue.
    """

    queue: str = CPU_QUEUE
    worker: str = ""
    slots: int = 1
    send_messages: Callable[[str, int], None] = _send_nothing

    def take(self, schedule: Schedule, lease_s: float, attempts: int) -> Lease | None:
        """Take the shard that is due; if one is taken and the queue lacks messages, send one.

        Returns:
            The lease of the shard; None if no shard is due for this worker.
        """
        lease = schedule.take(self.queue, lease_s=lease_s, attempts=attempts, worker=self.worker, slots=self.slots)
        if lease is not None and lease.messages_wanted:
            self._send(lambda: 1)
        return lease

    def send_messages_after_long_shard(self, schedule: Schedule, lease: Lease) -> None:
        """After a long shard, send the messages that the queue lacks; after any other shard, send none.

        A worker with several slots keeps one slot free of long shards, so other long shards may have waited for the end
        of this one.
        """
        if lease.is_long:
            self._send(lambda: schedule.messages_wanted(self.queue))

    def _send(self, count: Callable[[], int]) -> None:
        """Send as many messages as `count` returns; if the broker fails, log a warning."""
        try:
            self.send_messages(self.queue, count())
        except redis.RedisError as error:
            log.warning("cannot send messages, which the sweeper will do later: %s", error)
