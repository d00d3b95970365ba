"""Runs one part of a job under a lease."""

from __future__ import annotations

import logging
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import redis
from obstore.exceptions import BaseError as StoreError

from masksmith_state.blobs.store import BlobStore
from masksmith_state.device_locks.locks import DeviceLock
from masksmith_state.jobs.model import Lease, ShardReport
from masksmith_state.jobs.records import JobRecords
from masksmith_wire.benchmarks import CaseReport
from masksmith_wire.errors import Code, TensorError

from .lease import LeaseRenewer, StoppedError

Check = Callable[[], None]
STORE_PAUSE_S = 1.0
log = logging.getLogger(__name__)


class PartRunner(ABC):
    """Does one part of a job, a shard or a case, under a lease: what all kinds of jobs have in common.

    Args:
        records: Job records.
        store: Uploads and results.
        device: What reports name.
        lease_s: Seconds a lease lasts without renewal.
        attempts: Times a part is tried.
        store_patience_s: Seconds that a part waits for a store that fails, before the attempt has failed.
        grace_s: Seconds that a canceled part may take to stop.
        abort: Ends this process when a canceled part takes longer.
        device_lock: Lock of the device, where other processes use it too.

    Attributes:
        stopping: Set when this process is to stop: the part under way is given back.
    """

    def __init__(
        self,
        records: JobRecords,
        store: BlobStore,
        *,
        device: str = "cpu",
        lease_s: float = 15.0,
        attempts: int = 3,
        store_patience_s: float = 0.0,
        grace_s: float = 10.0,
        abort: Callable[[], None] | None = None,
        device_lock: DeviceLock | None = None,
    ) -> None:
        self.records, self.store, self.device, self.device_lock = records, store, device, device_lock
        self._lease_s, self._attempts, self._store_patience_s = lease_s, attempts, store_patience_s
        self._grace_s, self._abort = grace_s, abort
        self.stopping = threading.Event()

    def run(self, job: str, index: int) -> str:
        """Do part `index` of a job, unless another process does or did.

        Returns:
            One word for the log: `completed`, `stopped`, `lost`, `closed`, `done`, `held` or `exhausted`.
        """
        try:
            with self.place(job):
                return self._run(job, index)
        except StoppedError:
            return "stopped"

    def place(self, job: str) -> AbstractContextManager[object]:
        """Wait for a place on the device, before any lease is taken."""
        if self.device_lock is None:
            return nullcontext()
        return self.device_lock.share(lambda: self._check_waiting(job))

    @abstractmethod
    def work(self, lease: Lease, taken: float, check: Check) -> ShardReport | CaseReport:
        """Do the part that a lease is for, which was taken at this monotonic time; `check` raises when to stop."""

    @abstractmethod
    def failed(self, error: TensorError) -> ShardReport | CaseReport:
        """Make the report of a part that failed."""

    def _run(self, job: str, index: int) -> str:
        lease = self.records.take(job, index, lease_s=self._lease_s, attempts=self._attempts)
        if isinstance(lease, str):
            return lease
        began = time.monotonic()
        try:
            with LeaseRenewer(self.records, lease, self._lease_s, self.stopping, self._grace_s, self._abort) as renewer:
                report = self._work_patiently(lease, began, renewer.check)
            return "completed" if self.records.complete(lease, report, time.monotonic() - began) else "lost"
        except StoppedError:
            return "stopped"
        except redis.RedisError:
            raise
        except Exception as error:
            # It may pass the next time; the last attempt names it, so that a bug is not taken for a dead worker.
            if lease.attempt >= self._attempts:
                self.records.complete(lease, self.failed(_crash(error)))
            raise
        finally:
            self.records.release(lease, uncount=self.stopping.is_set())

    def _work_patiently(self, lease: Lease, taken: float, check: Check) -> ShardReport | CaseReport:
        """Work, again and again while the store fails: a disk is freed, a bucket comes back."""
        until = time.monotonic() + self._store_patience_s
        while True:
            try:
                return self.work(lease, taken, check)
            except StoreError as error:
                if time.monotonic() >= until:
                    raise
                log.warning(
                    "shard %s/%d waits for the store: %s", lease.job, lease.shard, str(error).partition("\n")[0]
                )
            self.stopping.wait(STORE_PAUSE_S)
            check()

    def _check_waiting(self, job: str) -> None:
        state = self.records.state(job)
        if self.stopping.is_set() or state is None or state.is_terminal:
            raise StoppedError


def _crash(error: Exception) -> TensorError:
    if isinstance(error, StoreError):
        message = "the blob store failed, time and again: its disk may be full; the worker's log has the details"
        return TensorError(code=Code.STORE_UNAVAILABLE, message=message)
    message = f"unexpected {type(error).__name__} in the worker, whose log has the details; please report this"
    return TensorError(code=Code.INTERNAL, message=message)
