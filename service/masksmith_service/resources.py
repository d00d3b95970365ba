"""Resources of the application: settings and connections, which requests get as a dependency."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass
from functools import partial
from threading import Event
from typing import Annotated, Any

import redis.asyncio
from anyio import CapacityLimiter
from fastapi import Depends, Request

from masksmith_state.blobs.leftovers import clear_leftovers
from masksmith_state.blobs.references import BlobReferences
from masksmith_state.blobs.retention import Retention
from masksmith_state.blobs.store import BlobStore
from masksmith_state.decoding import DECODING
from masksmith_state.housekeeping import Housekeeping
from masksmith_state.installation import Installation
from masksmith_state.jobs.records import JobRecords
from masksmith_state.roots.roots import Roots
from masksmith_state.telemetry.counters import COUNTS, UPLOAD_BYTES

from .bounds.capacity import Capacity
from .bounds.table import limit
from .jobs.completion_notifier import CompletionNotifier
from .jobs.events import BLOCK_MS
from .jobs.queue import MessageProducer
from .settings import Settings
from .system.readiness import ReadinessProbe

log = logging.getLogger(__name__)

CAPACITY_WAIT_S = 5.0
"""Seconds that a request waits for `memory`, `creations` or `lists` of `Capacities` before it is refused."""
CONNECTION_WAIT_S = 10
"""Seconds that a request waits for a connection to the broker."""


class Capacities:
    """Limited amounts that the requests of this process share.

    Attributes:
        memory: Bytes of memory.
        streams: Event streams, and requests that wait for a job.
        creations: Jobs that are being created.
        lists: Lists of jobs or files, and comparisons of jobs, that are being made. A list reads up to thousands of
            records, or files of a remote store.
        incoming_bytes: Bytes of each key's uploads that are being received.
        owners_and_part_counts: Owner and number of shards or cases of each job that was read recently, by the job's
            id; only a cache.
    """

    def __init__(self, settings: Settings) -> None:
        self.memory = Capacity("request_memory_bytes", settings.request_memory_bytes, CAPACITY_WAIT_S)
        self.streams = Capacity("max_streams", settings.max_streams)
        self.creations = Capacity("creations", limit("creations"), CAPACITY_WAIT_S)
        self.lists = Capacity("lists", limit("lists"), CAPACITY_WAIT_S)
        self.incoming_bytes: Counter[str] = Counter()
        self.owners_and_part_counts: dict[str, tuple[str, int]] = {}


@dataclass(frozen=True)
class State:
    """Settings, connections and shared objects of the application.

    Attributes that their types do not explain:
        async_redis: Connections of requests.
        events_redis: Connections that wait for events: of streams, and of the completion notifier.
        stop_event: Set when the service stops; event streams then end, and requests no longer wait for jobs to end.
        creation_threads: Limits the threads that create jobs or store small uploads.
        keys_seen: Set once this process has seen a key; until then, requests from this machine may need none.
    """

    settings: Settings
    records: JobRecords
    async_redis: redis.asyncio.Redis
    events_redis: redis.asyncio.Redis
    completions: CompletionNotifier
    store: BlobStore
    roots: Roots
    references: BlobReferences
    retention: Retention
    housekeeping: Housekeeping
    producer: MessageProducer
    stop_event: Event
    creation_threads: CapacityLimiter
    capacities: Capacities
    keys_seen: Event
    readiness: ReadinessProbe

    async def count_upload(self, size: int) -> None:
        """Add an upload's bytes to the counters; the upload does not fail if the broker is unavailable."""
        try:
            await self.async_redis.hincrbyfloat(COUNTS, UPLOAD_BYTES, size)
        except redis.RedisError as error:
            log.warning("an upload of %d bytes is not counted: %s", size, error)


def connect(settings: Settings, stop_event: Event) -> State:
    """Make the state of an application; connections are opened at their first use."""
    async_redis = _client(
        settings, redis.asyncio.BlockingConnectionPool, limit("broker_connections"), timeout=CONNECTION_WAIT_S
    )
    # One connection for each stream, and one for the completion notifier.
    events_redis = _client(settings, redis.asyncio.ConnectionPool, settings.max_streams + 1)
    records, store = JobRecords(settings.redis_url), BlobStore(settings.store_location, create=True)
    references = BlobReferences(records.redis, store)
    retention = Retention(records, references, store, settings.result_age_s, settings.upload_age_s)
    housekeeping = Housekeeping(
        Installation(records.redis, store), partial(clear_leftovers, store), retention.sweep_if_claimed
    )
    return State(
        settings=settings,
        records=records,
        async_redis=async_redis,
        events_redis=events_redis,
        completions=CompletionNotifier(events_redis, stop_event),
        store=store,
        roots=Roots(settings.roots),
        references=references,
        retention=retention,
        housekeeping=housekeeping,
        producer=MessageProducer(settings.redis_url),
        stop_event=stop_event,
        creation_threads=CapacityLimiter(limit("creations")),
        capacities=Capacities(settings),
        keys_seen=Event(),
        readiness=ReadinessProbe(async_redis, store, housekeeping),
    )


def _client(
    settings: Settings, pool: type[redis.asyncio.ConnectionPool], size: int, **options: Any
) -> redis.asyncio.Redis:
    # Reads of a job's events block for up to BLOCK_MS.
    connections = pool.from_url(
        settings.redis_url,
        **DECODING,
        socket_connect_timeout=3,
        socket_timeout=BLOCK_MS / 1000 + 5,
        max_connections=size,
        **options,
    )
    return redis.asyncio.Redis.from_pool(connections)


async def _state(request: Request) -> State:
    state: State = request.app.state.masksmith
    return state


StateDep = Annotated[State, Depends(_state)]
