"""What lives as long as the service does, and how requests get at it."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from threading import Event
from typing import Annotated

import redis.asyncio
from anyio import CapacityLimiter
from fastapi import Depends, Request

from masksmith_state.blobs.references import BlobReferences
from masksmith_state.blobs.retention import Retention
from masksmith_state.blobs.store import BlobStore
from masksmith_state.jobs.records import JobRecords
from masksmith_state.telemetry.counters import COUNTS, UPLOAD_BYTES

from .jobs.completion_notifier import Endings
from .jobs.events import BLOCK_MS, MAX_FOLLOWERS
from .jobs.queue import Queue
from .settings import Settings

log = logging.getLogger(__name__)

CREATIONS = 4
"""Jobs made at the same time: the others wait, but not for the threads that answer short questions."""


@dataclass(frozen=True)
class State:
    """Settings and the connections made from them."""

    settings: Settings
    records: JobRecords
    events: redis.asyncio.Redis
    endings: Endings
    store: BlobStore
    references: BlobReferences
    retention: Retention
    queue: Queue
    closing: Event
    creating: CapacityLimiter

    async def count_upload(self, size: int) -> None:
        """Add an upload's bytes to the counts; a broker that is away is no fault of the upload."""
        try:
            await self.events.hincrbyfloat(COUNTS, UPLOAD_BYTES, size)
        except redis.RedisError as error:
            log.warning("an upload of %d bytes is not counted: %s", size, error)


def connect(settings: Settings, closing: Event) -> State:
    """Prepare all connections; none is opened before it is used."""
    # Every follower of a job holds a connection, and waits on it for longer than redis-py would by itself.
    events = redis.asyncio.Redis.from_url(
        settings.redis_url,
        decode_responses=True,
        socket_connect_timeout=3,
        socket_timeout=BLOCK_MS / 1000 + 5,
        max_connections=MAX_FOLLOWERS,
    )
    records, store = JobRecords(settings.redis_url), BlobStore(settings.store_path, create=True)
    references = BlobReferences(records.redis, store)
    retention = Retention(records, references, store, settings.result_age_s, settings.upload_age_s)
    return State(
        settings,
        records,
        events,
        Endings(events, closing),
        store,
        references,
        retention,
        Queue(settings.redis_url),
        closing,
        CapacityLimiter(CREATIONS),
    )


async def _state(request: Request) -> State:
    state: State = request.app.state.masksmith
    return state


StateDep = Annotated[State, Depends(_state)]
