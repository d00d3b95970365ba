"""Registry of live workers in Redis, by name; one without a heartbeat for 15 s is dropped.

The cost of reading it does not grow with time.
"""

from __future__ import annotations

from typing import Generic, TypeVar, cast

import redis

from masksmith_wire.benchmarks import BenchWorker
from masksmith_wire.documents import WorkerInfo

SILENCE_S = 15

Entry = TypeVar("Entry", WorkerInfo, BenchWorker)


class WorkerRegistry(Generic[Entry]):
    """The documents of the workers that announce themselves again and again.

    Args:
        client: The broker.
        key: Name of the set that holds all names; each worker's document is stored below it.
        kind: Type of the documents.
    """

    def __init__(self, client: redis.Redis, key: str, kind: type[Entry]) -> None:
        self._redis, self._key = client, key
        self._kind: type[Entry] = kind

    def announce(self, entry: Entry) -> None:
        """Store a worker's document as its heartbeat."""
        with self._redis.pipeline(transaction=False) as pipe:
            pipe.set(self._key_of(entry.name), entry.model_dump_json(), ex=SILENCE_S)
            pipe.sadd(self._key, entry.name)
            pipe.execute()

    def remove(self, name: str) -> None:
        """Remove a worker that has stopped."""
        with self._redis.pipeline(transaction=False) as pipe:
            pipe.delete(self._key_of(name))
            pipe.srem(self._key, name)
            pipe.execute()

    def present(self) -> list[Entry]:
        """List the live workers, by name."""
        names = sorted(cast("set[str]", self._redis.smembers(self._key)))
        texts = cast("list[str | None]", self._redis.mget(map(self._key_of, names))) if names else []
        silent = [name for name, text in zip(names, texts, strict=True) if text is None]
        if silent:
            # The next heartbeat of one of them adds it again.
            self._redis.srem(self._key, *silent)
        return [self._kind.model_validate_json(text) for text in texts if text]

    def _key_of(self, name: str) -> str:
        return f"{self._key}:{name}"
