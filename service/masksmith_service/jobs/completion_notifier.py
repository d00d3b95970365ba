"""Lets requests wait until a job ends, over one Redis subscription per process."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import Counter
from contextlib import suppress
from typing import Any

import redis
from redis.asyncio import Redis

from masksmith_state.jobs.redis_keys import ENDED_CHANNEL

from .events import has_ended

log = logging.getLogger(__name__)

POLL_S = 2.0
"""Seconds after which a waiting request reads the job's state again if no message has come: messages may be lost."""


class CompletionNotifier:
    """Waits for jobs to end, on behalf of requests with `Prefer: wait`.

    Args:
        client: Redis client.
        stop_event: Set when the service is stopping; then `wait` returns within `POLL_S`.
    """

    def __init__(self, client: Redis, stop_event: threading.Event) -> None:
        self._client, self._stop_event = client, stop_event
        self._waiter_counts: Counter[str] = Counter()
        self._wake_events: dict[str, asyncio.Event] = {}
        self._subscription: asyncio.Task[None] | None = None

    async def wait(self, job: str, timeout_s: float) -> bool:
        """Wait until a job has ended or does not exist; False if the timeout or the stop of the service comes first."""
        if self._subscription is None or self._subscription.done():
            self._subscription = asyncio.create_task(self._receive_messages())
        self._waiter_counts[job] += 1
        wake, deadline = self._wake_events.setdefault(job, asyncio.Event()), time.monotonic() + timeout_s
        try:
            while not await has_ended(self._client, job):
                remaining_s = deadline - time.monotonic()
                if remaining_s <= 0 or self._stop_event.is_set():
                    return False
                with suppress(TimeoutError):
                    await asyncio.wait_for(wake.wait(), min(remaining_s, POLL_S))
                # Clear the event before the state is read, so that a message after the read is not lost.
                wake.clear()
            return True
        finally:
            self._waiter_counts[job] -= 1
            if not self._waiter_counts[job]:
                del self._waiter_counts[job], self._wake_events[job]

    async def _receive_messages(self) -> None:
        """Subscribe to the ids of ended jobs, and wake the requests that wait for them.

        Ends when no request waits, when the service is stopping, or at an error of Redis, which is logged.
        """
        try:
            async with self._client.pubsub() as pubsub:
                await pubsub.subscribe(ENDED_CHANNEL)
                while self._waiter_counts and not self._stop_event.is_set():
                    message = await pubsub.get_message(timeout=POLL_S)
                    if message is not None:
                        self._notify(message)
        except redis.RedisError as error:
            log.warning("cannot subscribe to ended jobs, so requests poll every %.0f s: %s", POLL_S, error)

    def _notify(self, message: dict[str, Any]) -> None:
        """Wake the requests that wait for the job in a message; at the start of the subscription, all requests."""
        if message["type"] == "subscribe":
            for wake in self._wake_events.values():
                wake.set()
        elif message["data"] in self._wake_events:
            self._wake_events[message["data"]].set()
