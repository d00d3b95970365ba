"""Lists jobs by time of creation, finds jobs by the beginning of their ids, and counts live jobs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any, cast

import redis

from .model import read_labels
from .redis_keys import IDS, JOBS, LIVE, TIMESTAMP_DIGITS, job_key

_TIMESTAMP = re.compile(rf"[0-9a-f]{{{TIMESTAMP_DIGITS}}}")
_CLOCK_TOLERANCE_S = 0.1
"""Seconds by which a job's time in the index, from Redis, may be later than the time in its id, from the service."""


class JobIndex:
    """Lists, finds and counts jobs, without reading their whole records.

    Args:
        client: Redis client, with `decode_responses`.
    """

    def __init__(self, client: redis.Redis) -> None:
        self.redis = client

    def has_jobs(self, owner: str) -> bool:
        """Whether there is a job of an owner, live or ended."""
        return bool(self.redis.exists(f"masksmith:owner:{owner}:jobs"))

    def find_ids(self, prefix: str, owner: str | None, limit: int) -> list[str]:
        """Find the first `limit` ids, in alphabetical order, that begin with `prefix`.

        Only ids of the owner's jobs are found; if `owner` is None, ids of all jobs.
        """
        index = IDS if owner is None else f"masksmith:owner:{owner}:ids"
        # `g` comes after all hex digits.
        return cast("list[str]", self.redis.zrangebylex(index, f"[{prefix}", f"[{prefix}g", start=0, num=limit))

    def ids_newest_first(
        self, after: str | None, limit: int, owner: str | None = None, until: datetime | None = None
    ) -> list[str]:
        """Ids of jobs that come after job `after` in the list, newest first; fewer than `limit` only at its end.

        Args:
            after: Id of a job; None begins with the newest job.
            limit: Maximum number of ids.
            owner: Only jobs of this owner; None: of all owners.
            until: Only jobs that were created at this time or earlier; None: created at any time.
        """
        index = JOBS if owner is None else f"masksmith:owner:{owner}:jobs"
        start = 0 if after is None else self._rank_after(index, after)
        if until is not None:
            start = max(start, int(self.redis.zcount(index, f"({until.timestamp()}", "+inf")))
        return cast("list[str]", self.redis.zrevrange(index, start, start + limit - 1))

    def summaries(self, ids: Sequence[str]) -> list[dict[str, Any]]:
        """Read the fields that lists of jobs show; jobs whose record is missing or cannot be read are left out."""
        names = ["owner", "name", "labels", "kind", "state", "pattern", "solver", "created_at", "finished_at"]
        names += ["done", "total"]
        summaries: list[dict[str, Any]] = []
        for job, row in self._rows(ids, names):
            entry = dict(zip(names, row, strict=True))
            # All fields of a missing record are None; a record always has a kind. Damaged labels are no JSON.
            with suppress(ValueError):
                if entry["kind"] is not None:
                    summaries.append({**entry, "id": job, "labels": read_labels(entry["labels"])})
        return summaries

    def _rows(self, ids: Sequence[str], names: Sequence[str]) -> list[tuple[str, list[str | None]]]:
        pipe = self.redis.pipeline(transaction=False)
        for job in ids:
            pipe.hmget(job_key(job), names)
        # For a key that is no hash, the reply is an error.
        replies = pipe.execute(raise_on_error=False)
        return [(job, row) for job, row in zip(ids, replies, strict=True) if isinstance(row, list)]

    def _rank_after(self, index: str, after: str) -> int:
        """Rank of the first job older than job `after`; if `after` was deleted, estimated from the time in its id.

        If `after` is no id, the rank is the number of jobs, so that the list is empty.
        """
        rank = cast("int | None", self.redis.zrevrank(index, after))
        if rank is not None:
            return rank + 1
        timestamp = after[:TIMESTAMP_DIGITS]
        if not _TIMESTAMP.fullmatch(timestamp):
            return int(self.redis.zcard(index))
        # The latest time that the deleted job can have had in the index: a page may repeat jobs, but omits none.
        latest_creation_of_after = int(timestamp, 16) / 1000 + _CLOCK_TOLERANCE_S
        return int(self.redis.zcount(index, latest_creation_of_after, "+inf"))

    def live_count(self) -> int:
        """Number of live jobs of all owners: queued or running."""
        return int(self.redis.scard(LIVE))
