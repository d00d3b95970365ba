"""Sends the heartbeats that keep this worker in the worker registry."""

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
from masksmith_state.worker_registry import HEARTBEAT_TIMEOUT_S
from masksmith_wire.benchmarks import BenchWorker
from masksmith_wire.documents import WorkerInfo

log = logging.getLogger(__name__)


class Heartbeat(threading.Thread):
    """Thread that announces a worker to the registries every few seconds, and removes the worker when stopped.

    Args:
        records: Job records, with the registries of workers.
        name: The worker's name.
        device: Its torch device.
        slots: Number of shards that it processes at the same time.
        queues: The queues that it reads.
        bench: What a worker of role `bench` announces about its kernels; None for others.
    """

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
        self._stop_event = threading.Event()

    def run(self) -> None:
        """Send heartbeats until stopped, then remove the worker."""
        while not self._stop_event.is_set():
            self._attempt("announce", self._announce)
            self._stop_event.wait(HEARTBEAT_TIMEOUT_S / 5)
        self._attempt("remove", self._remove)

    def request_stop(self) -> None:
        """Make the thread stop soon, without waiting for it; safe in a signal handler."""
        self._stop_event.set()

    def stop(self) -> None:
        """Stop the thread, and wait for it."""
        self.request_stop()
        self.join()

    def _announce(self) -> None:
        self._records.workers.announce(self._info.model_copy(update={"free_bytes": self._free_bytes()}))
        if self._bench is not None:
            self._records.bench_workers.announce(self._bench)

    def _free_bytes(self) -> int | None:
        """Free memory of the GPU; None for a CPU worker, or if CUDA fails, for example because this memory is full."""
        try:
            return device_facts(self._info.device)[1]
        except RuntimeError as error:
            log.warning("cannot read the free memory of %s: %s", self._info.device, str(error).partition("\n")[0])
            return None

    def _remove(self) -> None:
        self._records.workers.remove(self._info.name)
        if self._bench is not None:
            self._records.bench_workers.remove(self._info.name)

    @staticmethod
    def _attempt(action: str, call: Callable[[], None]) -> None:
        try:
            call()
        except redis.RedisError as error:
            log.warning("cannot %s this worker: %s", action, error)
