"""Workers that measure tell which kernels they have; the service tells whoever asks, and refuses what none can run."""

from __future__ import annotations

from typing import cast

import redis

from .benchmarks import BenchWorker
from .records import WORKER_SILENCE_S

PREFIX = "masksmith:bench-worker:"


def announce_kernels(client: redis.Redis, worker: BenchWorker) -> None:
    """Tell a worker's kernels; forgotten after 15 s of silence."""
    client.set(PREFIX + worker.name, worker.model_dump_json(), ex=WORKER_SILENCE_S)


def dismiss_kernels(client: redis.Redis, name: str) -> None:
    """Forget a worker that has stopped."""
    client.delete(PREFIX + name)


def bench_workers(client: redis.Redis) -> list[BenchWorker]:
    """List the measuring workers heard of lately, with their kernels."""
    names = sorted(client.scan_iter(match=PREFIX + "*", count=1000))
    texts = cast("list[str | None]", client.mget(names)) if names else []
    return [BenchWorker.model_validate_json(text) for text in texts if text]
