"""Runs uvicorn, in one process or in several that share a port."""

from __future__ import annotations

import gc
import logging
import multiprocessing
import os
import resource
import signal
import sys
from contextlib import suppress
from functools import partial
from threading import Thread
from typing import Any, cast

import uvicorn
from fastapi import FastAPI
from uvicorn.supervisors import Multiprocess

from masksmith_state.installation import protect_files
from masksmith_state.settings import read_settings
from masksmith_state.telemetry.tracing import TelemetryError

from .app import create_app
from .bounds.connections import Connections
from .bounds.totals import max_open_files
from .connection import Connection
from .settings import Settings

log = logging.getLogger(__name__)

STARTUP_FAILURE = 3
"""Exit code if the application cannot start; a process that ends with any other code is replaced by uvicorn."""
GRACE_S = 20
"""Seconds after a stop signal within which requests must end."""
GC_THRESHOLDS = (10_000, 20, 100)
"""Arguments of `gc.set_threshold`: the number of new objects after which the youngest generation is collected, and the
numbers of collections of a generation (the youngest, the middle one) after which the next older one is collected."""
SWITCH_INTERVAL_S = 0.0005
"""Switch interval of the interpreter: how long the event loop can delay a thread; the default is ten times as long."""
HANG_S = 60
"""One of several processes is replaced if it does not answer its parent for this many seconds.

Must exceed the start-up time.
"""


def serve(settings: Settings) -> None:
    """Serve until a stop signal; exits with 3 if the port cannot be bound, or if the application cannot start.

    After the signal, event streams and requests that wait for a job end at once, others within `GRACE_S`.
    """
    connection = partial(
        Connection,
        head_bytes=settings.max_request_head_bytes,
        head_s=settings.request_head_s,
        read_s=settings.read_stall_s,
        open_connections=Connections(settings.max_connections),
    )
    config = uvicorn.Config(
        f"{__name__}:make_app",
        factory=True,
        host=settings.host,
        port=settings.port,
        workers=settings.processes,
        http=cast(Any, connection),
        loop="uvloop",
        ws="none",
        log_config=None,
        access_log=False,
        # uvicorn need not read forwarded headers: the middleware in `app` does, for the proxies that the settings name.
        proxy_headers=False,
        timeout_graceful_shutdown=GRACE_S,
        timeout_worker_healthcheck=HANG_S,
    )
    with suppress(KeyboardInterrupt):
        has_started = _serve_in_one(config) if settings.processes == 1 else _serve_in_several(config)
        if not has_started:
            sys.exit(STARTUP_FAILURE)


def _serve_in_one(config: uvicorn.Config) -> bool:
    """Serve in this process; returns whether the application has started."""
    server = uvicorn.Server(config)
    server.run()
    return server.started


def _serve_in_several(config: uvicorn.Config) -> bool:
    """Serve in `config.workers` processes, which are replaced if they die; returns False if one has failed to start.

    If one fails to start, all others are ended.
    """
    supervisor = Multiprocess(config, sockets=[config.bind_socket()])
    supervisor.run()
    return all(process.exitcode != STARTUP_FAILURE for process in supervisor.processes)


def make_app() -> FastAPI:
    """Make the application of one process, and configure the process; exits with 3 if that fails."""
    try:
        return _make_app()
    except TelemetryError as error:
        log.error("refusing to start: %s", error)
        sys.exit(STARTUP_FAILURE)
    except Exception:
        log.exception("the application cannot start")
        sys.exit(STARTUP_FAILURE)


def _make_app() -> FastAPI:
    settings = read_settings(Settings)
    settings.configure_logging()
    protect_files()
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    _raise_file_limit(max_open_files(settings))
    _stop_with_parent()
    app = create_app(settings)
    _reduce_garbage_collection()
    return app


def _raise_file_limit(files: int) -> None:
    """Allow this process to open `files` files, or as many as the system's hard limit allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < files:
        new_limit = files if hard == resource.RLIM_INFINITY else min(files, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (new_limit, hard))
        if new_limit < files:
            log.warning("the limit of open files is %d; max_connections and max_streams may need %d", new_limit, files)


def _stop_with_parent() -> None:
    """Send this process SIGTERM when the process that spawned it, if any, has ended, so that the port is released."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch() -> None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)

    Thread(target=watch, name="parent", daemon=True).start()


def _reduce_garbage_collection() -> None:
    """Exclude the objects that exist now from garbage collection, and collect less often.

    During a full collection the event loop waits.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)
