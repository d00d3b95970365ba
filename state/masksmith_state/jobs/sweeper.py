"""Puts stranded shards back into the queue: whose lease lapsed, or whose message was lost between two steps.

Runs in every service and worker; a lock in Redis lets one of them at a time do the work.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

import redis
from obstore.exceptions import BaseError as StoreError

from masksmith_state.queue import CPU_QUEUE, GPU_QUEUE, QUEUES

from .placement import drained_by
from .records import JobRecords

log = logging.getLogger(__name__)

IDLE_PATIENCE_S = 5.0
OVERTAKEN_S = 60.0

Enqueue = Callable[[str, int, str], None]
"""Puts a job's shard into a queue."""


def sweep(records: JobRecords, enqueue: Enqueue, period_s: float) -> int:
    """Enqueue every stranded shard, if it is this process's turn.

    A shard that was never taken counts as lost soon when its queue is empty. While messages wait, first in, first out,
    it counts as lost once a shard that was enqueued a minute later has been taken: however long the queue, a shard that
    merely waits is not enqueued twice.

    Returns:
        The number of shards put back.
    """
    if not records.claim_sweep(period_s):
        return 0
    if GPU_QUEUE not in drained_by(records.workers.present()):
        # Processors find the same masks, and the job need not wait for a GPU to come back.
        for job in records.move(GPU_QUEUE, CPU_QUEUE):
            log.warning("no GPU worker is alive: job %s goes to the CPU workers", job)
    count = 0
    for queue in QUEUES:
        waiting = records.queue_length(queue) > 0
        patience_s = OVERTAKEN_S if waiting else IDLE_PATIENCE_S
        for job, shard in records.stranded(patience_s, overtaken=waiting, queue=queue):
            enqueue(job, shard, queue)
            count += 1
    if count:
        log.warning("put %d stranded shard(s) back into the queue", count)
    return count


class Sweeper(threading.Thread):
    """Sweeps once a period until stopped; goes on after a broker was away.

    Args:
        records: Job records.
        enqueue: Puts a shard into the queue.
        period_s: Seconds between two sweeps.
        also: Another sweep, which decides itself whether it is due.
    """

    def __init__(
        self, records: JobRecords, enqueue: Enqueue, period_s: float, also: Callable[[], object] | None = None
    ) -> None:
        super().__init__(name="sweeper", daemon=True)
        self._records, self._enqueue, self._period_s, self._also = records, enqueue, period_s, also
        self._over = threading.Event()

    def run(self) -> None:
        """Sweep once a period."""
        while not self._over.wait(self._period_s):
            try:
                sweep(self._records, self._enqueue, self._period_s * 0.9)
                if self._also is not None:
                    self._also()
            except (redis.RedisError, OSError, StoreError) as error:
                log.warning("cannot sweep: %s", error)

    def stop(self) -> None:
        """End the thread."""
        self._over.set()
        self.join()
