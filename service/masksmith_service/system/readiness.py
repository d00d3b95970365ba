"""Readiness probe: checks the broker, and writes to Redis and to the blob store as an upload does."""

from __future__ import annotations

import asyncio
import time
from functools import partial
from typing import Any

import anyio.to_thread
import redis
from obstore.exceptions import BaseError as StoreError
from redis.asyncio import Redis

from masksmith_state.blobs.names import incoming_name
from masksmith_state.blobs.store import BlobStore
from masksmith_state.errors import BrokerUnsafeError, InstallationError
from masksmith_state.housekeeping import Housekeeping

PROBE_KEY = "masksmith:probe"
REUSE_S = 1.0
"""Seconds for which the outcome of a probe is reused."""
EXPIRY_S = 60
"""Seconds after which Redis deletes `PROBE_KEY`, unless another probe writes it again."""

Error = redis.RedisError | StoreError | InstallationError | BrokerUnsafeError


class ReadinessProbe:
    """Writes a few bytes to Redis and to the blob store, and checks the state of the broker, at most once a second.

    Args:
        client: The asynchronous Redis client, which requests also use to look up their API keys.
        store: The blob store.
        housekeeping: Checks that Redis and the blob store belong together, before anything is written to the store.
    """

    def __init__(self, client: Redis, store: BlobStore, housekeeping: Housekeeping) -> None:
        self._redis, self._store, self._housekeeping = client, store, housekeeping
        self._lock = asyncio.Lock()
        self._probed_at = -REUSE_S
        self._error: Error | None = None

    async def check(self) -> None:
        """Probe, unless the previous probe ended less than `REUSE_S` ago; raise the error of the latest probe, if any.

        Raises:
            redis.RedisError, StoreError, InstallationError, BrokerUnsafeError: If requests that need Redis or the blob
                store would fail, or the broker may lose work.
        """
        async with self._lock:
            if time.monotonic() - self._probed_at >= REUSE_S:
                self._error = await self._probe()
                self._probed_at = time.monotonic()
        if self._error is not None:
            # One error may be raised many times, and each time would add to its traceback.
            raise self._error.with_traceback(None)

    async def _probe(self) -> Error | None:
        try:
            set_probe: Any = self._redis.set(PROBE_KEY, "1", ex=EXPIRY_S)  # typed by redis-py as Awaitable | bool
            await set_probe
            await anyio.to_thread.run_sync(partial(_check_and_write, self._store, self._housekeeping))
        except (redis.RedisError, StoreError, InstallationError, BrokerUnsafeError) as error:
            return error
        return None


def _check_and_write(store: BlobStore, housekeeping: Housekeeping) -> None:
    """Check the installation and the broker, then write an object to the store and delete it."""
    housekeeping.ensure_store_claimed()
    problems = housekeeping.broker.status().problems
    if problems:
        raise BrokerUnsafeError("; ".join(problems))
    # All processes write and delete the same object, which nothing reads.
    name = incoming_name("probe")
    store.objects.put(name, b"1")
    store.objects.delete(name)
