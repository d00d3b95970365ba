"""Runs one part of a job (a shard or a benchmark case) under a lease, with retries and error reports."""

from __future__ import annotations

import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext

import redis
from obstore.exceptions import BaseError as StoreError

from masksmith_state.blobs.store import BlobStore
from masksmith_state.device_locks.locks import DeviceLock
from masksmith_state.errors import RootUnavailableError, UnreadableRecordError
from masksmith_state.jobs.model import Lease
from masksmith_state.jobs.records import JobRecords
from masksmith_state.jobs.reports import ShardReport
from masksmith_state.panics import is_panic
from masksmith_state.roots.roots import Roots
from masksmith_wire.benchmarks import CaseReport
from masksmith_wire.errors import Code, TensorError

from .intake import Intake
from .lease import LeaseRenewer, StoppedError
from .stop_flag import StopFlag

Check = Callable[[], None]
"""Raises `StoppedError` if the work must stop."""
STORE_RETRY_S = 1.0
"""Seconds between two retries within an attempt, while the store fails."""
log = logging.getLogger(__name__)


class PartRunner(ABC):
    """Base class of the runners of shards and benchmark cases.

    Args:
        records: Job records.
        store: The blob store, with uploads and results.
        device: Device on which parts are solved or measured, such as `cpu` or `cuda:0`.
        lease_s: Seconds that a lease lasts without renewal.
        attempts: Limit of attempts at a part.
        store_patience_s: Seconds for which a part is retried while the store fails, before the attempt fails.
        grace_s: Seconds after the loss of a lease, for example by cancellation, within which the part must stop.
        abort: Ends this process if the part has not stopped after `grace_s`.
        device_lock: Lock of the device, if other processes use the device, too.
        intake: The source of parts; by default, the queue of CPU workers.
        roots: Roots that jobs read from and write to; by default none.

    Attributes:
        stopping: Set when this process must stop; the current part is then released.
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
        intake: Intake | None = None,
        roots: Roots | None = None,
    ) -> None:
        self.records, self.store, self.device, self.device_lock = records, store, device, device_lock
        self._lease_s, self._attempts, self._store_patience_s = lease_s, attempts, store_patience_s
        self._grace_s, self._abort, self._intake = grace_s, abort, intake or Intake()
        self.roots = roots or Roots()
        self.stopping = StopFlag()

    @contextmanager
    def next_lease(self) -> Iterator[Lease | None]:
        """Acquire the device, and take the part that is due; None if no part is due, or this process is stopping."""
        with ExitStack() as stack:
            try:
                self._check_stopping()
                stack.enter_context(self.hold_device())
            except StoppedError:
                yield None
                return
            schedule = self.records.schedule
            lease = self._intake.take(schedule, self._lease_s, self._attempts)
            if lease is not None:
                stack.callback(self._intake.send_messages_after_long_shard, schedule, lease)
            yield lease

    def run(self, lease: Lease) -> str:
        """Process the part of a lease.

        Returns:
            The outcome, for the log: `completed`; `stopped`, if the work was broken off, because the job was canceled,
            the lease was lost or this process is stopping; `lost`, if the work was done, but its report was refused
            because the lease was lost or the job had ended; or `unreadable`, if the record of the job was set aside.

        Raises:
            Exception: If the attempt fails; a failure of the last attempt is also reported as the error of the part.
        """
        try:
            return self._run(lease)
        except UnreadableRecordError as error:
            self.records.set_aside(error)
            return "unreadable"

    def hold_device(self) -> AbstractContextManager[object]:
        """Acquire the device for the duration of the context; called before a part is taken."""
        if self.device_lock is None:
            return nullcontext()
        return self.device_lock.shared(self._check_stopping)

    @abstractmethod
    def work(self, lease: Lease, taken_at: float, check: Check) -> ShardReport | CaseReport:
        """Process the part of a lease.

        Args:
            lease: The lease.
            taken_at: Monotonic time at which the lease was taken.
            check: Raises StoppedError if the work must stop; to be called regularly.
        """

    @abstractmethod
    def error_report(self, error: TensorError) -> ShardReport | CaseReport:
        """Report of a failed part."""

    def _run(self, lease: Lease) -> str:
        taken_at = time.monotonic()
        try:
            with LeaseRenewer(self.records, lease, self._lease_s, self.stopping, self._grace_s, self._abort) as renewer:
                report = self._work_with_retries(lease, taken_at, renewer.check)
            return "completed" if self.records.complete(lease, report, time.monotonic() - taken_at) else "lost"
        except StoppedError:
            return "stopped"
        except (redis.RedisError, UnreadableRecordError):
            raise
        except BaseException as error:
            if not (isinstance(error, Exception) or is_panic(error)):
                raise
            # The next attempt may succeed. The last attempt reports the error: otherwise the shard would be reported as
            # one whose worker died.
            if lease.attempt >= self._attempts:
                self.records.complete(lease, self.error_report(_tensor_error(error)))
            if isinstance(error, Exception):
                raise
            raise RuntimeError(f"a native library panicked: {error}") from None
        finally:
            # This does nothing if the part was completed, or the lease was lost: its token is then no longer valid.
            self.records.release(lease, forget_attempt=self.stopping.is_set())

    def _work_with_retries(self, lease: Lease, taken_at: float, check: Check) -> ShardReport | CaseReport:
        """Process the part; from the first failure of the store on, retry for `store_patience_s`.

        The store fails, for example, if its disk is full. The seconds are counted from the first failure, not from the
        start; a failure of the store after this time ends the attempt.
        """
        deadline: float | None = None
        while True:
            try:
                return self.work(lease, taken_at, check)
            except StoreError as error:
                now = time.monotonic()
                deadline = now + self._store_patience_s if deadline is None else deadline
                if now >= deadline:
                    raise
                log.warning(
                    "shard %s/%d waits for the store: %s", lease.job, lease.shard, str(error).partition("\n")[0]
                )
            time.sleep(STORE_RETRY_S)
            check()

    def _check_stopping(self) -> None:
        if self.stopping.is_set():
            raise StoppedError


def _tensor_error(error: BaseException) -> TensorError:
    if isinstance(error, RootUnavailableError):
        return TensorError(code=Code.ROOT_UNAVAILABLE, message=f"{error}; submit the job again once it is accessible")
    if isinstance(error, StoreError):
        message = "the blob store failed repeatedly: its disk may be full; the worker's log has the details"
        return TensorError(code=Code.STORE_UNAVAILABLE, message=message)
    message = f"unexpected {type(error).__name__} in the worker, whose log has the details; please report this"
    return TensorError(code=Code.INTERNAL, message=message)
