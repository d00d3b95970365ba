"""Choosing the faster of several equivalent products by trying them, as a careful user would."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import torch

Product = Callable[[torch.Tensor], torch.Tensor]

TRIES = 5


def fastest(ways: Mapping[str, Product], sample: torch.Tensor) -> tuple[str, Product]:
    """Give the way whose best of a few calls is the fastest, by name."""
    seconds = {name: min(_seconds(way, sample) for _ in range(TRIES)) for name, way in ways.items()}
    best = min(seconds, key=lambda name: seconds[name])
    return best, ways[best]


def _seconds(way: Product, sample: torch.Tensor) -> float:
    def settle() -> None:
        if sample.device.type == "cuda":
            torch.cuda.synchronize(sample.device)

    way(sample)
    settle()
    begun = time.perf_counter()
    way(sample)
    settle()
    return time.perf_counter() - begun
