"""The heartbeat by which the service knows that this worker is alive."""

from __future__ import annotations

import logging
import platform
import threading
from collections.abc import Callable
from datetime import UTC, datetime

import redis

import masksmith as ms
from masksmith.cuda import device_facts
from masksmith_state.jobs.records import JobRecords
from masksmith_state.worker_registry import SILENCE_S
from masksmith_wire.benchmarks import BenchWorker
from masksmith_wire.documents import WorkerInfo

log = logging.getLogger(__name__)


class Heartbeat(threading.Thread):
    """Announces a worker every few seconds; removes it when stopped."""

    def __init__(
        self,
        records: JobRecords,
        name: str,
        device: str,
        slots: int,
        queues: list[str],
        bench: BenchWorker | None = None,
    ) -> None:
        super().__init__(name="heartbeat", daemon=True)
        self._records = records
        self._info = WorkerInfo(
            name=name,
            device=device,
            device_name=device_facts(device)[0] or platform.processor() or platform.machine(),
            slots=slots,
            queues=queues,
            version=ms.__version__,
            started_at=datetime.now(UTC),
        )
        self._bench = bench
        self._over = threading.Event()

    def run(self) -> None:
        """Announce now and then; remove it in the end."""
        while not self._over.is_set():
            self._attempt("announce", self._announce)
            self._over.wait(SILENCE_S / 5)
        self._attempt("remove", self._remove)

    def end(self) -> None:
        """Ask the thread to end; safe in a signal handler."""
        self._over.set()

    def stop(self) -> None:
        """End the thread, and wait for it."""
        self.end()
        self.join()

    def _announce(self) -> None:
        _, free = device_facts(self._info.device)
        self._records.workers.announce(self._info.model_copy(update={"free_bytes": free}))
        if self._bench is not None:
            self._records.bench_workers.announce(self._bench)

    def _remove(self) -> None:
        self._records.workers.remove(self._info.name)
        if self._bench is not None:
            self._records.bench_workers.remove(self._info.name)

    @staticmethod
    def _attempt(what: str, call: Callable[[], None]) -> None:
        try:
            call()
        except redis.RedisError as error:
            log.warning("cannot %s this worker: %s", what, error)
