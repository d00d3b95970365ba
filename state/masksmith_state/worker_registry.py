"""Rolls in Redis: who is there, by name, forgotten after 15 s of silence. Reading one costs nothing that grows."""

from __future__ import annotations

from typing import Generic, TypeVar, cast

import redis

from masksmith_wire.benchmarks import BenchWorker
from masksmith_wire.documents import WorkerInfo

SILENCE_S = 15

Entry = TypeVar("Entry", WorkerInfo, BenchWorker)


class Roll(Generic[Entry]):
    """The documents of those who announce themselves again and again.

    Args:
        client: The broker.
        key: Name of the set that holds all names; each one's document lies below it.
        kind: What the documents are.
    """

    def __init__(self, client: redis.Redis, key: str, kind: type[Entry]) -> None:
        self._redis, self._key = client, key
        self._kind: type[Entry] = kind

    def announce(self, entry: Entry) -> None:
        """Tell the world that `entry` is there."""
        with self._redis.pipeline(transaction=False) as pipe:
            pipe.set(self._of(entry.name), entry.model_dump_json(), ex=SILENCE_S)
            pipe.sadd(self._key, entry.name)
            pipe.execute()

    def dismiss(self, name: str) -> None:
        """Forget who has left."""
        with self._redis.pipeline(transaction=False) as pipe:
            pipe.delete(self._of(name))
            pipe.srem(self._key, name)
            pipe.execute()

    def present(self) -> list[Entry]:
        """List who was heard of lately, by name."""
        names = sorted(cast("set[str]", self._redis.smembers(self._key)))
        texts = cast("list[str | None]", self._redis.mget(map(self._of, names))) if names else []
        silent = [name for name, text in zip(names, texts, strict=True) if text is None]
        if silent:
            # Whoever speaks up again is put back by that.
            self._redis.srem(self._key, *silent)
        return [self._kind.model_validate_json(text) for text in texts if text]

    def _of(self, name: str) -> str:
        return f"{self._key}:{name}"
