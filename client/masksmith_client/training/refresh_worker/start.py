"""Who asks: a process of its own wherever it can, lest Python code run beside the training loop."""

from __future__ import annotations

import os
import sys
from typing import Any

from masksmith_client._client import Client
from masksmith_client._errors import InputError
from masksmith_client.training.refresh import Refresh

from .client_configuration import Recipe
from .handler import Answerer
from .process import ProcessAsker
from .shared_memory import Memory
from .sources import Function, Service, Source
from .thread import Asker, InlineAsker, ThreadAsker


def start(masks: object, memory: Memory, refresh: Refresh) -> Asker:
    """Give the asker for `Sparsifier(masks=...)`.

    A client's connection and `masksmith.solve` are set up anew in a process of their own; other functions, and clients
    with a transport of their own, run in a thread. With `refresh.wait`, everything runs in place.

    Raises:
        InputError: If `masks` is neither a client nor a function.
    """
    source = _source(masks)
    if refresh.wait:
        return InlineAsker(Answerer(source, memory))
    recipe = _recipe(masks)
    if recipe is None or os.name != "posix":
        return ThreadAsker(Answerer(source, memory))
    return ProcessAsker(recipe, memory, refresh.cores)


def _source(masks: object) -> Source:
    if isinstance(masks, Client):
        return Service(masks)
    if callable(masks):
        return Function(masks)
    raise InputError(f"masks={masks!r} is neither a Client nor a function such as masksmith.solve")


def _recipe(masks: Any) -> Recipe | None:
    if isinstance(masks, Client):
        return Recipe.of(masks)
    library = sys.modules.get("masksmith")
    return Recipe() if library is not None and masks is getattr(library, "solve", None) else None
