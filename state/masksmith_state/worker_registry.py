"""Worker registry in Redis: workers announce themselves by heartbeats.

A worker's document expires 15 s after its last heartbeat.
The names of expired workers are removed when the registry is read, so that the cost of reading does not grow with time.
"""

from __future__ import annotations

from typing import Generic, TypeVar, cast

import redis
from pydantic import ValidationError

from masksmith_wire.benchmarks import BenchWorker
from masksmith_wire.documents import WorkerInfo

from .expiry import limit_expiry
from .queue import QUEUES
from .unreadable import set_aside

HEARTBEAT_TIMEOUT_S = 15


def served_key(queue: str) -> str:
    """Redis key that exists while a live worker consumes a queue, and up to `HEARTBEAT_TIMEOUT_S` afterwards."""
    return f"masksmith:served:{queue}"


Document = TypeVar("Document", WorkerInfo, BenchWorker)


class WorkerRegistry(Generic[Document]):
    """Documents of live workers, by worker name.

    Args:
        client: Redis client.
        key: Redis key of the set of names; each worker's document has the key `KEY:NAME`.
        model: Pydantic model of the documents, `WorkerInfo` or `BenchWorker`.
    """

    def __init__(self, client: redis.Redis, key: str, model: type[Document]) -> None:
        self._redis, self._key = client, key
        self._model: type[Document] = model

    def announce(self, document: Document) -> None:
        """Store a worker's document; each call is a heartbeat."""
        with self._redis.pipeline(transaction=False) as pipe:
            pipe.set(self._key_of(document.name), document.model_dump_json(), ex=HEARTBEAT_TIMEOUT_S)
            pipe.sadd(self._key, document.name)
            for queue in document.queues if isinstance(document, WorkerInfo) else ():
                pipe.set(served_key(queue), document.name, ex=HEARTBEAT_TIMEOUT_S)
            pipe.execute()

    def remove(self, name: str) -> None:
        """Remove a worker's name and document; the keys of its queues (see `served_key`) expire by themselves."""
        with self._redis.pipeline(transaction=False) as pipe:
            pipe.delete(self._key_of(name))
            pipe.srem(self._key, name)
            pipe.execute()

    def live(self) -> list[Document]:
        """Return the documents of the live workers, sorted by name; remove the names of expired workers.

        A worker whose document is invalid is left out and removed; the text is stored by `set_aside`.
        """
        names: list[str] = sorted(cast("set[str]", self._redis.smembers(self._key)))
        limit_expiry(self._redis, [*map(self._key_of, names), *map(served_key, QUEUES)], HEARTBEAT_TIMEOUT_S)
        texts = cast("list[str | None]", self._redis.mget(map(self._key_of, names))) if names else []
        expired = [name for name, text in zip(names, texts, strict=True) if text is None]
        if expired:
            # A worker that is alive after all is added again by its next heartbeat.
            self._redis.srem(self._key, *expired)
        return [document for document in map(self._parse, names, texts) if document is not None]

    def _parse(self, name: str, text: str | None) -> Document | None:
        """Parse a worker's document; None if it has expired. If it is invalid, remove the worker and return None."""
        if text is None:
            return None
        try:
            return self._model.model_validate_json(text)
        except ValidationError as error:
            self.remove(name)
            set_aside(self._redis, "worker", name, f"{error.error_count()} invalid field(s)", text)
            return None

    def _key_of(self, name: str) -> str:
        return f"{self._key}:{name}"
