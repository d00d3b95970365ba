"""Endings: one connection hears which jobs have ended, for all requests that wait for one."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from contextlib import suppress
from threading import Event as Flag
from typing import Any

import redis
from redis.asyncio import Redis

from masksmith_state.jobs.redis_keys import ENDED

from .events import is_over

log = logging.getLogger(__name__)

LOOK_S = 2.0
"""Seconds after which a waiting request looks for itself: what is told while nobody can listen is lost."""


class Endings:
    """Wakes who waits for a job.

    Args:
        client: The broker.
        closing: Set when the service is to end; nobody waits any longer then.
    """

    def __init__(self, client: Redis, closing: Flag) -> None:
        self._client, self._closing = client, closing
        self._waiting: Counter[str] = Counter()
        self._news: dict[str, asyncio.Event] = {}
        self._listening: asyncio.Task[None] | None = None

    async def wait(self, job: str, timeout_s: float) -> bool:
        """Wait for a job's end, or until it is deleted. Returns whether that came in time."""
        if self._listening is None or self._listening.done():
            self._listening = asyncio.create_task(self._listen())
        self._waiting[job] += 1
        news, deadline = self._news.setdefault(job, asyncio.Event()), time.monotonic() + timeout_s
        try:
            while not await is_over(self._client, job):
                left_s = deadline - time.monotonic()
                if left_s <= 0 or self._closing.is_set():
                    return False
                with suppress(TimeoutError):
                    await asyncio.wait_for(news.wait(), min(left_s, LOOK_S))
                # Before the next look: news of a moment ago must not be mistaken for more of it.
                news.clear()
            return True
        finally:
            self._waiting[job] -= 1
            if not self._waiting[job]:
                del self._waiting[job], self._news[job]

    async def _listen(self) -> None:
        """Hear of endings until nobody has waited for a while."""
        try:
            async with self._client.pubsub() as channel:
                await channel.subscribe(ENDED)
                while self._waiting and not self._closing.is_set():
                    message = await channel.get_message(timeout=LOOK_S)
                    if message is not None:
                        self._wake(message)
        except redis.RedisError as error:
            log.warning("cannot hear of jobs that end, so requests look every %.0f s: %s", LOOK_S, error)

    def _wake(self, message: dict[str, Any]) -> None:
        """Wake who waits for the job named; or all of them, when the channel has just begun to be heard."""
        if message["type"] == "subscribe":
            for news in self._news.values():
                news.set()
        elif message["data"] in self._news:
            self._news[message["data"]].set()
