"""The Celery tasks, one for each kind of job, and the set-up of pool processes."""

from __future__ import annotations

import logging
import os
import signal
from functools import cache, partial

from celery.signals import worker_process_init

import masksmith as ms
from masksmith._freed_memory import keep_freed_memory
from masksmith._warm_up import READY_PATTERNS
from masksmith.benchmark import device_identity
from masksmith_state.blobs.store import BlobStore
from masksmith_state.device_locks.locks import DeviceLock
from masksmith_state.installation import protect_files
from masksmith_state.jobs.records import JobRecords
from masksmith_state.queue import CASE_TASK, SHARD_TASK
from masksmith_state.roots.roots import Roots
from masksmith_state.settings import read_settings
from masksmith_state.telemetry import logs

from .app import RELEASE_SIGNAL, consumed_queue, create_app, send_messages
from .bench import CaseRunner
from .intake import Intake
from .part_runner import PartRunner
from .runner import ShardRunner
from .settings import Settings
from .tracing import Spans

log = logging.getLogger(__name__)
app = create_app(read_settings(Settings))


@cache
def runner() -> PartRunner:
    """The runner of this process."""
    settings = Settings()
    records = JobRecords(settings.redis_url)
    runner_class: type[PartRunner] = CaseRunner if settings.worker_role == "bench" else ShardRunner
    return runner_class(
        records,
        BlobStore(settings.store_location),
        device=settings.worker_device,
        lease_s=settings.lease_s,
        attempts=settings.attempts,
        store_patience_s=settings.store_patience_s,
        abort=partial(os._exit, 1),
        intake=Intake(
            queue=consumed_queue(settings),
            worker=settings.worker_name,
            slots=settings.slots,
            send_messages=partial(send_messages, app),
        ),
        roots=Roots(settings.roots),
        device_lock=DeviceLock(records.redis, device_identity(settings.worker_device), settings.lease_s),
    )


@cache
def spans() -> Spans:
    """The span recorder of this process."""
    return Spans(Settings().otlp_url)


@app.task(name=SHARD_TASK)  # type: ignore[untyped-decorator]
def solve_shard() -> None:
    """Process the shard that is due, if any, and write its report.

    A shard is a range of a tensor's rows, whose mask is computed and stored; or a file of a job's output, which is
    written.
    """
    with runner().next_lease() as lease:
        if lease is None:
            return
        with (
            logs.context(job=lease.job, shard=lease.shard),
            spans().record_shard(lease.job, lease.shard) as attributes,
        ):
            attributes["outcome"] = runner().run(lease)
            log.info("%s", attributes["outcome"])


@app.task(name=CASE_TASK)  # type: ignore[untyped-decorator]
def measure_case() -> None:
    """Measure the benchmark case that is due, if any, and write its report to the job's record."""
    with runner().next_lease() as lease:
        if lease is not None:
            with logs.context(job=lease.job, shard=lease.shard):
                log.info("%s", runner().run(lease))


def _initialize_process(**_: object) -> None:
    """Set up a pool process: logging, file permissions, niceness, release signal, runner and span recorder.

    A process that solves shards also loads the kernels of `READY_PATTERNS`, and keeps freed memory for later use.
    """
    settings = Settings()
    settings.configure_logging()
    protect_files()
    if settings.worker_role == "search":
        # A service or a training loop on the same machine then gets the CPU first.
        os.nice(settings.worker_nice)
    signal.signal(RELEASE_SIGNAL, lambda *_: runner().stopping.set())
    runner()
    spans()
    if isinstance(runner(), ShardRunner):
        keep_freed_memory()
        ms.warm_up(READY_PATTERNS)


worker_process_init.connect(_initialize_process)
