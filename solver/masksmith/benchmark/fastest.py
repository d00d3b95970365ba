"""Selects the fastest of several implementations of a product, by timing each a few times."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import torch

Product = Callable[[torch.Tensor], torch.Tensor]

TRIES = 5
"""Timed calls per implementation, of which the fastest counts."""


def fastest(implementations: Mapping[str, Product], sample: torch.Tensor) -> tuple[str, Product]:
    """Return name and function of the implementation whose fastest call takes the least time."""
    seconds = {name: min(_seconds(product, sample) for _ in range(TRIES)) for name, product in implementations.items()}
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
