"""Selects the fastest of several implementations of a product, by timing each a few times."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial

import torch

from .cuda_clock import CudaClock

Product = Callable[[torch.Tensor], torch.Tensor]

TRIES = 5
"""Calls per implementation that are timed on the host, of which the fastest counts."""


def fastest(
    implementations: Mapping[str, Product], sample: torch.Tensor, clock: CudaClock | None = None
) -> tuple[str, Product]:
    """Return name and function of the fastest implementation.

    Without a clock, that is the one whose fastest call takes the least time on the host. A clock of a CUDA device
    times them as a benchmark does: by replays if all can be captured in a graph, else by eager calls.
    """
    if len(implementations) > 1 and clock is not None:
        eager, graph = clock.time({name: partial(run, sample) for name, run in implementations.items()}, 1)
        seconds = {name: times[0] for name, times in (graph if len(graph) == len(eager) else eager).items()}
    else:
        seconds = {name: min(_seconds(run, sample) for _ in range(TRIES)) for name, run in implementations.items()}
    best = min(seconds, key=lambda name: seconds[name])
    return best, implementations[best]


def _seconds(product: Product, sample: torch.Tensor) -> float:
    """Return the seconds of one call, after another one that is not timed."""
    product(sample)
    synchronise(sample.device)
    started = time.perf_counter()
    product(sample)
    synchronise(sample.device)
    return time.perf_counter() - started


def synchronise(device: torch.device) -> None:
    """Wait until a CUDA device has done all work that was queued; other devices have no queue."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
