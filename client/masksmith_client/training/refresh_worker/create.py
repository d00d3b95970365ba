"""Create the refresh worker: one in the calling thread if requests are waited for, else a process or a thread."""

from __future__ import annotations

import os
import sys

from masksmith_client._client import Client
from masksmith_client._errors import InputError
from masksmith_client.training.refresh import Refresh

from .handler import RefreshHandler
from .process import ProcessWorker
from .shared_memory import SharedMemory
from .sources import FunctionSource, MaskSource, ServiceSource
from .thread import InlineWorker, RefreshWorker, ThreadWorker


def create_worker(masks: object, memory: SharedMemory, refresh: Refresh) -> RefreshWorker:
    """Create the worker for `Sparsifier(masks=...)`; the first request starts its process or thread, if it has one.

    With `refresh.wait`, requests run in the calling thread. Otherwise, a client and `masksmith.solve` run in a worker
    process on POSIX, and in a thread elsewhere. Other functions, and clients with a custom transport, run in a thread
    on every system, since they cannot be sent to another process.

    Raises:
        InputError: If `masks` is neither a client nor a function.
    """
    source = _source(masks)
    if refresh.wait:
        return InlineWorker(RefreshHandler(source, memory))
    configuration = masks.configuration if isinstance(masks, Client) else None
    if os.name != "posix" or (configuration is None and not _is_solve(masks)):
        return ThreadWorker(RefreshHandler(source, memory))
    return ProcessWorker(configuration, memory, refresh.cores)


def _source(masks: object) -> MaskSource:
    if isinstance(masks, Client):
        return ServiceSource(masks)
    if callable(masks):
        return FunctionSource(masks)
    raise InputError(f"masks={masks!r} is neither a Client nor a function such as masksmith.solve")


def _is_solve(masks: object) -> bool:
    """Whether `masks` is `masksmith.solve`, without importing the library."""
    library = sys.modules.get("masksmith")
    return library is not None and masks is getattr(library, "solve", None)
