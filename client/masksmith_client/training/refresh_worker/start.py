"""Where masks are computed from: a process of its own if possible, so that no Python code runs beside the training."""

from __future__ import annotations

import os
import sys

from masksmith_client._client import Client
from masksmith_client._errors import InputError
from masksmith_client.training.refresh import Refresh

from .handler import Handler
from .process import ProcessWorker
from .shared_memory import Memory
from .sources import Function, Service, Source
from .thread import InlineWorker, RefreshWorker, ThreadWorker


def start(masks: object, memory: Memory, refresh: Refresh) -> RefreshWorker:
    """Give the worker for `Sparsifier(masks=...)`.

    A client and `masksmith.solve` are made again in a process of their own; other functions, and clients with a
    transport of their own, run in a thread. With `refresh.wait`, everything runs in the calling thread.

    Raises:
        InputError: If `masks` is neither a client nor a function.
    """
    source = _source(masks)
    if refresh.wait:
        return InlineWorker(Handler(source, memory))
    configuration = masks.configuration if isinstance(masks, Client) else None
    if os.name != "posix" or (configuration is None and not _is_library(masks)):
        return ThreadWorker(Handler(source, memory))
    return ProcessWorker(configuration, memory, refresh.cores)


def _source(masks: object) -> Source:
    if isinstance(masks, Client):
        return Service(masks)
    if callable(masks):
        return Function(masks)
    raise InputError(f"masks={masks!r} is neither a Client nor a function such as masksmith.solve")


def _is_library(masks: object) -> bool:
    library = sys.modules.get("masksmith")
    return library is not None and masks is getattr(library, "solve", None)
