"""Runs a worker: `python -m masksmith_worker`, settings from the environment."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
from functools import partial
from typing import Any

import masksmith as ms
from masksmith.benchmark import all_kernels
from masksmith_state.jobs.records import JobRecords
from masksmith_state.jobs.sweeper import Sweeper

from .app import STOP_SIGNAL, enqueue, own_queue, run
from .bench import announcement
from .heartbeat import Heartbeat
from .requirements import check_requirements
from .settings import Settings
from .tasks import app

log = logging.getLogger("masksmith_worker")

STOP_GRACE_S = 7.0
"""Seconds that shards have to be given back once the worker is to stop."""


def main() -> None:
    """Start the worker and its two side threads; returns after a signal to stop, when it has drained."""
    settings = Settings()
    settings.configure_logging()
    check_requirements(settings)
    # Inherited by the pool's processes, so that the signal does not kill one that is still starting.
    signal.signal(STOP_SIGNAL, signal.SIG_IGN)
    records = JobRecords(settings.redis_url)
    queue = own_queue(settings)
    name, device = settings.worker_name, settings.worker_device
    bench = announcement(name, device, all_kernels()) if settings.worker_role == "bench" else None
    heartbeat = Heartbeat(records, name, device, settings.slots, [queue], bench)
    sweeper = Sweeper(records, partial(enqueue, app), settings.sweep_s)
    pools: list[Any] = []

    def ready(pool: Any) -> None:
        pools.append(pool)
        heartbeat.start()
        sweeper.start()
        log.info("worker %s ready: %d slot(s) on %s", settings.worker_name, settings.slots, queue)

    def signal_pools(number: signal.Signals) -> None:
        for process in (process for pool in pools for process in pool.info["processes"]):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, number)

    def stopping() -> None:
        heartbeat.end()
        signal_pools(STOP_SIGNAL)
        deadline = threading.Timer(STOP_GRACE_S, leave)
        deadline.daemon = True
        deadline.start()

    def leave() -> None:
        # A pool process that was still starting has not heard the signal; leases bring back what it may hold.
        log.warning("not drained within %.0f s: leaving", STOP_GRACE_S)
        signal_pools(signal.SIGKILL)
        os._exit(0)

    # Here, before the pool starts: its children then load what they would otherwise compile side by side.
    if settings.worker_role == "search":
        log.info("kernels ready after %.1f s", ms.warm_up())
    try:
        run(app, settings, ready, stopping)
    finally:
        if sweeper.is_alive():
            sweeper.stop()
            heartbeat.stop()


if __name__ == "__main__":
    main()
