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
from masksmith_state.settings import read_settings

from .app import RELEASE_SIGNAL, consumed_queue, run, send_messages
from .bench import bench_worker_document
from .heartbeat import Heartbeat
from .kernels import prepare_kernels, start_compiling_others
from .requirements import check_requirements
from .settings import Settings

log = logging.getLogger("masksmith_worker")

STOP_GRACE_S = 7.0
"""Seconds after SIGTERM or SIGINT within which pool processes must release their shards and end."""


def main() -> None:
    """Run the worker until SIGTERM or SIGINT has come and its pool has ended; exit with 2 if it refuses to start."""
    settings = read_settings(Settings)
    # Imported here and not above: the import reads the settings, too, and fails if they are invalid.
    from .tasks import app

    settings.configure_logging()
    protect_files()
    # Pool processes inherit that the signal is ignored, so it does not kill a process that is still starting.
    signal.signal(RELEASE_SIGNAL, signal.SIG_IGN)
    records = JobRecords(settings.redis_url)
    try:
        check_requirements(settings)
        housekeeping = Housekeeping(Installation(records.redis, BlobStore(settings.store_location)))
        Roots(settings.roots).check_apart(settings.store_location)
        housekeeping.check()
    except InstallationError as error:
        log.error("refusing to start: %s", error)
        sys.exit(2)
    WorkerProcess(app, settings, records, housekeeping).run()


class WorkerProcess:
    """The main process of a worker: Celery with its pool, heartbeats, sweeper, and compilation in the background.

    Args:
        app: The Celery application.
        settings: Settings of the worker.
        records: Job records.
        housekeeping: Checks broker and store; the sweeper calls it once per period. It deletes no blobs: the
            housekeeping of services does.
    """

    def __init__(self, app: Any, settings: Settings, records: JobRecords, housekeeping: Housekeeping) -> None:
        self._app, self._settings, self._start_progress = app, settings, records.start_progress
        self._queue = consumed_queue(settings)
        self._is_search_worker = settings.worker_role == "search"
        name, device = settings.worker_name, settings.worker_device
        bench = None if self._is_search_worker else bench_worker_document(name, device, all_kernels())
        self._heartbeat = Heartbeat(records, name, device, settings.slots, [self._queue], bench)
        self._sweeper = Sweeper(records, partial(send_messages, app), settings.sweep_s, housekeeping.run)
        self._pool: Any = None
        self._compilation: subprocess.Popen[bytes] | None = None

    def run(self) -> None:
        """Run until SIGTERM or SIGINT."""
        # Compile the solver's kernels before the pool starts, so that its processes load them, and do not each compile
        # them.
        if self._is_search_worker:
            self._report_progress("the worker is starting")
            started = time.monotonic()
            prepare_kernels(self._report_progress)
            log.info("kernels ready after %.1f s", time.monotonic() - started)
        try:
            run(self._app, self._settings, self._on_ready, self._on_stop)
        finally:
            self._stop_compilation()
            if self._sweeper.is_alive():  # If not, `_on_ready` was not called.
                self._sweeper.stop()
                self._heartbeat.stop()

    def _report_progress(self, line: str) -> None:
        with contextlib.suppress(redis.RedisError):
            self._start_progress.report(self._settings.worker_name, line)

    def _on_ready(self, pool: Any) -> None:
        self._pool = pool
        with contextlib.suppress(redis.RedisError):
            self._start_progress.clear(self._settings.worker_name)
        self._heartbeat.start()
        self._sweeper.start()
        log.info("worker %s ready: %d slot(s) on %s", self._settings.worker_name, self._settings.slots, self._queue)
        if self._is_search_worker and self._settings.worker_compile_later:
            self._compilation = start_compiling_others()

    def _on_stop(self) -> None:
        """Make pool processes release their shards, and exit at the latest after `STOP_GRACE_S`.

        Called in a signal handler.
        """
        self._heartbeat.request_stop()
        self._signal_pool(RELEASE_SIGNAL)
        timer = threading.Timer(STOP_GRACE_S, self._kill_pool_and_exit)
        timer.daemon = True
        timer.start()

    def _kill_pool_and_exit(self) -> None:
        # A pool process that was still starting has ignored the signal; if it has a shard, the shard's lease expires.
        log.warning("the pool has not ended within %.0f s: exiting", STOP_GRACE_S)
        self._signal_pool(signal.SIGKILL)
        self._stop_compilation()
        os._exit(0)

    def _signal_pool(self, number: signal.Signals) -> None:
        if self._pool is None:
            return
        for process in self._pool.info["processes"]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, number)

    def _stop_compilation(self) -> None:
        if self._compilation is not None:
            self._compilation.kill()
            self._compilation.wait()


if __name__ == "__main__":
    main()
