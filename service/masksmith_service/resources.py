"""Resources of the application: settings and connections, which requests get as a dependency."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import partial
from threading import Event
from typing import Annotated

import redis.asyncio
from anyio import CapacityLimiter
from fastapi import Depends, Request

from masksmith_state.blobs.leftovers import clear_leftovers
from masksmith_state.blobs.references import BlobReferences
from masksmith_state.blobs.retention import Retention
from masksmith_state.blobs.store import BlobStore
from masksmith_state.housekeeping import Housekeeping
from masksmith_state.installation import Installation
from masksmith_state.jobs.records import JobRecords
from masksmith_state.telemetry.counters import COUNTS, UPLOAD_BYTES

from .jobs.completion_notifier import CompletionNotifier
from .jobs.events import BLOCK_MS, MAX_FOLLOWERS
from .jobs.queue import Queue
from .settings import Settings
from .system.readiness import ReadinessProbe

log = logging.getLogger(__name__)

MAX_CREATIONS = 4
"""Limit of concurrent job creations; further ones wait without occupying the threads that other requests need."""


@dataclass(frozen=True)
class State:
    """Settings and the connections made from them."""

    settings: Settings
    records: JobRecords
    events: redis.asyncio.Redis
    completions: CompletionNotifier
    store: BlobStore
    references: BlobReferences
    retention: Retention
    housekeeping: Housekeeping
    queue: Queue
    closing: Event
    creating: CapacityLimiter
    keys_seen: Event
    readiness: ReadinessProbe

    async def count_upload(self, size: int) -> None:
        """Add an upload's bytes to the counters; the upload does not fail if the broker is unavailable."""
        try:
            await self.events.hincrbyfloat(COUNTS, UPLOAD_BYTES, size)
        except redis.RedisError as error:
            log.warning("an upload of %d bytes is not counted: %s", size, error)


def connect(settings: Settings, closing: Event) -> State:
    """Make all clients; connections are opened at their first use."""
    # Every client that follows a job's events uses a connection, and blocks on it for longer than the default timeout.
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
    housekeeping = Housekeeping(
        Installation(records.redis, store), partial(clear_leftovers, store), retention.sweep_if_claimed
    )
    return State(
        settings,
        records,
        events,
        CompletionNotifier(events, closing),
        store,
        references,
        retention,
        housekeeping,
        Queue(settings.redis_url),
        closing,
        CapacityLimiter(MAX_CREATIONS),
        Event(),
        ReadinessProbe(events, store, housekeeping),
    )


async def _state(request: Request) -> State:
    state: State = request.app.state.masksmith
    return state


StateDep = Annotated[State, Depends(_state)]
