"""Renews the lease of a shard, or of a benchmark's case, in a side thread while it is processed.

After a loss of the lease, the work must stop: `LeaseRenewer.check` raises an error. If the work has not stopped within
a grace period after the loss, the process can be aborted.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

import redis

from masksmith_state.errors import UnreadableRecordError
from masksmith_state.jobs.model import Lease
from masksmith_state.jobs.records import JobRecords

from .stop_flag import StopFlag

log = logging.getLogger(__name__)


class StoppedError(Exception):
    """The work was stopped: the job was canceled or deleted, the lease was lost, or the worker is stopping."""


class LeaseRenewer:
    """Context manager that renews a lease in a side thread, and notices its loss; after that, `check` raises an error.

    A lease is also lost when its job is canceled or deleted.

    Args:
        records: Job records.
        lease: The lease.
        lease_s: Seconds that the lease lasts without renewal.
        stopping: Set when the worker is stopping.
        grace_s: Seconds after the loss of the lease within which the work must stop, before `abort` is called.
        abort: Ends the process, if the work has not stopped by then; None lets the work go on.
    """

    def __init__(
        self,
        records: JobRecords,
        lease: Lease,
        lease_s: float,
        stopping: StopFlag,
        grace_s: float,
        abort: Callable[[], None] | None,
    ) -> None:
        self._records, self._lease, self._lease_s = records, lease, lease_s
        self._worker_stopping, self._grace_s, self._abort = stopping, grace_s, abort
        self._lost, self._exited = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._renew_or_abort, name="lease", daemon=True)

    def check(self) -> None:
        """Raise an error if the work must stop.

        Raises:
            StoppedError: If the lease was lost or the worker is stopping.
        """
        if self._lost.is_set() or self._worker_stopping.is_set():
            raise StoppedError

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._exited.set()
        self._thread.join()

    def _renew_or_abort(self) -> None:
        """Renew the lease until the context is left; if the lease is lost, abort unless the context is left in time."""
        while self._renew():
            # Several times in `lease_s`; at least once a second, so that a cancellation is noticed soon.
            if self._exited.wait(min(self._lease_s / 5, 1.0)):
                return
        self._lost.set()
        if not self._exited.wait(self._grace_s) and self._abort is not None:
            log.error(
                "shard %s/%d has lost its lease and does not stop; aborting the process",
                self._lease.job,
                self._lease.shard,
            )
            self._abort()

    def _renew(self) -> bool:
        """Renew the lease once; return False if it is lost or the job's record is unreadable.

        True if it is renewed, and also if the broker is unavailable.
        """
        try:
            return self._records.renew(self._lease, self._lease_s)
        except UnreadableRecordError:
            return False
        except redis.RedisError:
            log.warning(
                "cannot renew the lease of shard %s/%d: the broker is unavailable", self._lease.job, self._lease.shard
            )
            return True
