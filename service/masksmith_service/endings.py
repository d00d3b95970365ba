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

from masksmith_protocol.documents import JobState
from masksmith_protocol.records import ENDED, job_key

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
            while not await self._is_over(job):
                left_s = deadline - time.monotonic()
                if left_s <= 0 or self._closing.is_set():
                    return False
                with suppress(TimeoutError):
                    await asyncio.wait_for(news.wait(), min(left_s, LOOK_S))
            return True
        finally:
            self._waiting[job] -= 1
            if not self._waiting[job]:
                del self._waiting[job], self._news[job]

    async def _is_over(self, job: str) -> bool:
        state: Any = await self._client.hget(job_key(job), "state")
        return state is None or JobState(state).is_terminal

    async def _listen(self) -> None:
        """Hear of endings until nobody has waited for a while."""
        try:
            async with self._client.pubsub(ignore_subscribe_messages=True) as channel:
                await channel.subscribe(ENDED)
                while self._waiting and not self._closing.is_set():
                    message = await channel.get_message(timeout=LOOK_S)
                    if message is not None and message["data"] in self._news:
                        self._news[message["data"]].set()
        except redis.RedisError as error:
            log.warning("cannot hear of jobs that end, so requests look every %.0f s: %s", LOOK_S, error)
