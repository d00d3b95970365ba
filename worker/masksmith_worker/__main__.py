"""Entry point of a worker: `python -m masksmith_worker`, with settings from the environment."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from typing import Any

import redis

from masksmith.benchmark import all_kernels
from masksmith_state.blobs.store import BlobStore
from masksmith_state.errors import InstallationError
from masksmith_state.housekeeping import Housekeeping
from masksmith_state.installation import Installation, protect_files
from masksmith_state.jobs.records import JobRecords
from masksmith_state.jobs.sweeper import Sweeper
from masksmith_state.roots.roots import Roots

from .app import STOP_SIGNAL, consumed_queue, request_work, run
from .bench import bench_worker_document
from .heartbeat import Heartbeat
from .kernels import compile_later, prepare_kernels
from .requirements import check_requirements
from .settings import Settings
from .tasks import app

log = logging.getLogger("masksmith_worker")

STOP_GRACE_S = 7.0
"""Seconds after a stop signal within which pool processes must release their shards."""


def main() -> None:
    """Run the worker and its two side threads until a stop signal; returns when the pool has drained."""
    settings = Settings()
    settings.configure_logging()
    protect_files()
    check_requirements(settings)
    # Pool processes inherit this, so that the signal does not kill one that is still starting.
    signal.signal(STOP_SIGNAL, signal.SIG_IGN)
    records = JobRecords(settings.redis_url)
    housekeeping = Housekeeping(Installation(records.redis, BlobStore(settings.store_path)))
    try:
        Roots(settings.roots).check_apart(settings.store_path)
        housekeeping.check()
    except InstallationError as error:
        log.error("refusing to start: %s", error)
        sys.exit(2)
    queue = consumed_queue(settings)
    name, device = settings.worker_name, settings.worker_device
    bench = bench_worker_document(name, device, all_kernels()) if settings.worker_role == "bench" else None
    heartbeat = Heartbeat(records, name, device, settings.slots, [queue], bench)
    sweeper = Sweeper(records, partial(request_work, app), settings.sweep_s, housekeeping.run)
    pools: list[Any] = []
    background: list[subprocess.Popen[bytes]] = []

    def report(line: str) -> None:
        with contextlib.suppress(redis.RedisError):
            records.start_progress.report(name, line)

    def on_ready(pool: Any) -> None:
        pools.append(pool)
        with contextlib.suppress(redis.RedisError):
            records.start_progress.clear(name)
        heartbeat.start()
        sweeper.start()
        log.info("worker %s ready: %d slot(s) on %s", settings.worker_name, settings.slots, queue)
        if settings.worker_role == "search" and settings.worker_compile_later and (process := compile_later()):
            background.append(process)

    def stop_background() -> None:
        for process in background:
            process.kill()
            process.wait()

    def signal_pools(number: signal.Signals) -> None:
        for process in (process for pool in pools for process in pool.info["processes"]):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, number)

    def on_stop() -> None:
        heartbeat.request_stop()
        signal_pools(STOP_SIGNAL)
        deadline = threading.Timer(STOP_GRACE_S, exit_now)
        deadline.daemon = True
        deadline.start()

    def exit_now() -> None:
        # A pool process that was still starting ignored the signal; if it holds a shard, the lease lapses.
        log.warning("not drained within %.0f s: exiting", STOP_GRACE_S)
        signal_pools(signal.SIGKILL)
        stop_background()
        os._exit(0)

    # Compile the kernels before the pool starts, so that its processes load them instead of each compiling them.
    if settings.worker_role == "search":
        report("the worker is starting")
        began = time.monotonic()
        prepare_kernels(report)
        log.info("kernels ready after %.1f s", time.monotonic() - began)
    try:
        run(app, settings, on_ready, on_stop)
    finally:
        stop_background()
        if sweeper.is_alive():
            sweeper.stop()
            heartbeat.stop()


if __name__ == "__main__":
    main()
