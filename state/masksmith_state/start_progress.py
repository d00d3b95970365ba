"""Progress of workers that are starting: one line for each, all of which expire some time after the last report."""

from __future__ import annotations

from typing import cast

import redis

KEY = "masksmith:starting"
EXPIRY_S = 120
"""Seconds after the last report of any worker at which all lines are deleted."""


class StartProgress:
    """The lines of progress, by worker.

    Args:
        client: The broker.
    """

    def __init__(self, client: redis.Redis) -> None:
        self._redis = client

    def report(self, worker: str, line: str) -> None:
        """Set the line of a worker."""
        with self._redis.pipeline(transaction=True) as pipe:
            pipe.hset(KEY, worker, line)
            pipe.expire(KEY, EXPIRY_S)
            pipe.execute()

    def clear(self, worker: str) -> None:
        """Remove the line of a worker that is ready."""
        self._redis.hdel(KEY, worker)

    def first_line(self) -> str | None:
        """Return the line of the first worker by name, or None if no worker is starting."""
        lines = cast("dict[str, str]", self._redis.hgetall(KEY))
        return lines[min(lines)] if lines else None
