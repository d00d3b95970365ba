"""Enqueues stranded shards again: those whose lease expired, or whose message was lost.

Runs in every service and worker; a lock in Redis lets one of them sweep at a time.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

import redis
from obstore.exceptions import BaseError as StoreError

from masksmith_state.queue import CPU_QUEUE, GPU_QUEUE, QUEUES

from .placement import queues_with_workers
from .records import JobRecords

log = logging.getLogger(__name__)

IDLE_PATIENCE_S = 5.0
BACKLOG_PATIENCE_S = 60.0

Enqueue = Callable[[str, int, str], None]
"""Enqueues a shard: job, shard, queue."""


def sweep(records: JobRecords, enqueue: Enqueue, period_s: float) -> int:
    """Enqueue every stranded shard, if this process claims the sweep.

    If the queue is empty, a shard that was not taken within `IDLE_PATIENCE_S` has lost its message. If messages wait,
    in FIFO order, it has lost its message once a shard that was enqueued `BACKLOG_PATIENCE_S` later has been taken. So
    a shard that merely waits in a long queue is not enqueued twice.

    Returns:
        The number of shards enqueued.
    """
    if not records.claim_sweep(period_s):
        return 0
    if GPU_QUEUE not in queues_with_workers(records.workers.live()):
        # CPU workers compute the same masks, so the jobs need not wait for a GPU worker.
        for job in records.move_jobs(GPU_QUEUE, CPU_QUEUE):
            log.warning("no GPU worker is alive: job %s is moved to the CPU workers", job)
    count = 0
    for queue in QUEUES:
        has_backlog = records.queue_length(queue) > 0
        patience_s = BACKLOG_PATIENCE_S if has_backlog else IDLE_PATIENCE_S
        for job, shard in records.stranded(patience_s, from_horizon=has_backlog, queue=queue):
            enqueue(job, shard, queue)
            count += 1
    if count:
        log.warning("enqueued %d stranded shard(s) again", count)
    return count


class Sweeper(threading.Thread):
    """Thread that sweeps once per period until it is stopped; errors of Redis or the store are logged.

    Args:
        records: Job records.
        enqueue: Enqueues a shard.
        period_s: Seconds between two sweeps.
        sweep_blobs: The retention sweep, which claims its own turn.
    """

    def __init__(
        self, records: JobRecords, enqueue: Enqueue, period_s: float, sweep_blobs: Callable[[], object] | None = None
    ) -> None:
        super().__init__(name="sweeper", daemon=True)
        self._records, self._enqueue, self._period_s, self._sweep_blobs = records, enqueue, period_s, sweep_blobs
        self._stop_event = threading.Event()

    def run(self) -> None:
        """Sweep once a period."""
        while not self._stop_event.wait(self._period_s):
            try:
                sweep(self._records, self._enqueue, self._period_s * 0.9)
                if self._sweep_blobs is not None:
                    self._sweep_blobs()
            except (redis.RedisError, OSError, StoreError) as error:
                log.warning("cannot sweep: %s", error)
            except Exception:
                # One record that nothing expects must not end the thread: the next sweep tries again.
                log.exception("the sweep failed")

    def stop(self) -> None:
        """End the thread."""
        self._stop_event.set()
        self.join()
