"""Renews a lease while its part of a job is being worked on, and says when to stop."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

import redis

from masksmith_state.jobs.model import Lease
from masksmith_state.jobs.records import JobRecords

log = logging.getLogger(__name__)


class StoppedError(Exception):
    """The job was canceled, the lease was lost, or the worker is to stop, while the part was being worked on."""


class LeaseRenewer:
    """Renews a lease in the background for as long as it is entered.

    Args:
        records: Where the lease is.
        lease: The lease.
        lease_s: Seconds it lasts without renewal.
        stopping: Set when the worker is to stop.
        grace_s: Seconds that a part may go on after its lease was lost, before `abort` is called.
        abort: Ends the process.
    """

    def __init__(
        self,
        records: JobRecords,
        lease: Lease,
        lease_s: float,
        stopping: threading.Event,
        grace_s: float,
        abort: Callable[[], None] | None,
    ) -> None:
        self._records, self._lease, self._lease_s = records, lease, lease_s
        self._stopping, self._grace_s, self._abort = stopping, grace_s, abort
        self._lost, self._over = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._renew_until_over, name="lease", daemon=True)

    def check(self) -> None:
        """Raise once there is no use in going on.

        Raises:
            StoppedError: Then.
        """
        if self._lost.is_set() or self._stopping.is_set():
            raise StoppedError

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()

    def _renew_until_over(self) -> None:
        while self._renew():
            if self._over.wait(min(self._lease_s / 5, 1.0)):
                return
        self._lost.set()
        if not self._over.wait(self._grace_s) and self._abort is not None:
            log.error("shard %s/%d does not stop though its lease is lost", self._lease.job, self._lease.shard)
            self._abort()

    def _renew(self) -> bool:
        try:
            return self._records.renew(self._lease, self._lease_s)
        except redis.RedisError:
            log.warning("cannot renew the lease of shard %s/%d: no broker", self._lease.job, self._lease.shard)
            return True
