"""Queues again the shards whose lease has lapsed, moves jobs if no GPU worker is alive, and sends missing messages.

Runs in every service and worker; in each period, the first process that claims the sweep in Redis sweeps.
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

SendMessages = Callable[[str, int], None]
"""Sends messages to a queue; the arguments are the queue's name, and the number of messages."""


def sweep(records: JobRecords, send_messages: SendMessages, period_s: float) -> int:
    """Queue again every shard whose lease has lapsed, and send missing messages, if this process claims the sweep.

    Jobs in the queue of GPU workers are moved to the CPU workers if no GPU worker is alive.

    Returns:
        The number of shards queued again; 0 if another process has claimed the sweep.
    """
    if not records.claim_sweep(period_s):
        return 0
    if GPU_QUEUE not in queues_with_workers(records.workers.live()):
        # CPU workers compute the same masks, so these jobs need not wait for a GPU worker.
        for job in records.schedule.move_jobs(GPU_QUEUE, CPU_QUEUE):
            log.warning("no GPU worker is alive: job %s is moved to the CPU workers", job)
    shard_count = sum(1 for _ in records.schedule.requeue_lapsed_shards())
    for queue in QUEUES:
        missing_messages = records.schedule.messages_wanted(queue)
        if missing_messages:
            send_messages(queue, missing_messages)
    if shard_count:
        log.warning("queued %d shard(s) again whose lease had lapsed", shard_count)
    return shard_count


class Sweeper(threading.Thread):
    """Thread that sweeps once per period until it is stopped; errors are logged, and do not end it.

    Args:
        records: Job records.
        send_messages: Sends messages to a queue.
        period_s: Seconds between two sweeps.
        housekeeping: Called after each sweep. It checks broker and store; in services it also sweeps blobs, once in a
            longer period.
    """

    def __init__(
        self,
        records: JobRecords,
        send_messages: SendMessages,
        period_s: float,
        housekeeping: Callable[[], object] | None = None,
    ) -> None:
        super().__init__(name="sweeper", daemon=True)
        self._records, self._send_messages = records, send_messages
        self._period_s, self._housekeeping = period_s, housekeeping
        self._stop_event = threading.Event()

    def run(self) -> None:
        """Sweep once a period."""
        while not self._stop_event.wait(self._period_s):
            try:
                # A claim lapses a little earlier than the next call, so this process can claim the next sweep, too.
                sweep(self._records, self._send_messages, self._period_s * 0.9)
                if self._housekeeping is not None:
                    self._housekeeping()
            except (redis.RedisError, OSError, StoreError) as error:
                log.warning("cannot sweep: %s", error)
            except Exception:
                # An unexpected error, such as that of a malformed record, must not end the thread.
                log.exception("the sweep failed")

    def stop(self) -> None:
        """Wait for a sweep that is running, and end the thread."""
        self._stop_event.set()
        self.join()
