"""The server: uvicorn as it comes, in one process or in several behind one port."""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import sys
from functools import partial
from threading import Thread
from typing import Any, cast

import uvicorn
from fastapi import FastAPI

from .app import create_app
from .connection import Connection
from .settings import Settings

GRACE_S = 20
"""Seconds that requests get to end."""
COLLECT = (10_000, 20, 100)
"""How many new objects, and younger collections, there are before each of the collector's generations is looked at."""
SWITCH_S = 0.0005
"""How long the loop may keep the interpreter while a thread has an answer ready: by default ten times as long."""
HANG_S = 60
"""Seconds without an answer after which a process, which may still be starting, is replaced."""


def serve(settings: Settings) -> None:
    """Listen until a signal; exits with 3 where that is impossible.

    Event streams and requests that wait for a job end at once then, others within `GRACE_S`.
    """
    connection = partial(Connection, head_bytes=settings.max_request_head_bytes, head_s=settings.request_head_s)
    uvicorn.run(
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
        timeout_graceful_shutdown=GRACE_S,
        timeout_worker_healthcheck=HANG_S,
    )


def make_app() -> FastAPI:
    """Make the application of one process, and set the process up for it."""
    settings = Settings()
    settings.configure_logging()
    sys.setswitchinterval(SWITCH_S)
    _end_with_parent()
    app = create_app(settings)
    _exempt_from_collection()
    return app


def _end_with_parent() -> None:
    """Stop as a signal would once the process that started this one is gone: nothing else would free the port."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch() -> None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)

    Thread(target=watch, name="parent", daemon=True).start()


def _exempt_from_collection() -> None:
    """Let the garbage collector leave what lives as long as the process alone: a look at all of it stops the loop."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECT)
