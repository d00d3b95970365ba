"""Redis keys of jobs, and the ids of jobs; `lua/_prelude.lua` and `lua/_scheduling.lua` describe what the keys hold."""

from __future__ import annotations

import re
import secrets
from datetime import UTC, datetime

from masksmith_wire.digests import digest_bytes

JOBS, IDS, LIVE, FINISHED = "masksmith:jobs", "masksmith:ids", "masksmith:live", "masksmith:finished"
"""In this order: sorted set of jobs by creation, sorted set of jobs by id, set of live (queued or running) jobs, and
sorted set of ended jobs by their end."""
ENDED_CHANNEL = "masksmith:ended"
"""Channel to which the id of a job is published when the job ends, or its record is set aside as unreadable."""

TIMESTAMP_DIGITS = 11
ID_LENGTH = TIMESTAMP_DIGITS + 16
"""Hex digits of a job's id: the time of its creation in milliseconds, then 64 random bits."""
_JOB_ID = re.compile(rf"[0-9a-f]{{{ID_LENGTH}}}")


def new_job_id() -> str:
    """Make the id of a new job."""
    return f"{int(datetime.now(UTC).timestamp() * 1000):0{TIMESTAMP_DIGITS}x}{secrets.token_hex(8)}"


def is_job_id(text: str) -> bool:
    """Whether a text has the form of a job's id; check this before a text of a request is put into a Redis key."""
    return _JOB_ID.fullmatch(text) is not None


def job_key(job: str) -> str:
    """Key of the hash of a job's fields."""
    return f"masksmith:job:{job}"


def output_lock_key(location: str) -> str:
    """Key of the lock on an output's location; a service holds the lock while it creates a job that writes there."""
    return f"masksmith:output:{digest_bytes(location.encode())}"


def idempotency_redis_key(owner: str, key_digest: str) -> str:
    """Redis key of the hash of an owner's idempotency key, which is given by its digest.

    The hash has the id of the job, and the fingerprint of the request that first used the idempotency key.
    """
    return f"masksmith:idempotency:{owner}:{key_digest}"


def parts_key(job: str) -> str:
    """Key of the hash of a job's shards or cases, by index."""
    return job_key(job) + ":shards"


def reports_key(job: str) -> str:
    """Key of the hash of the reports of finished shards or cases, by index."""
    return job_key(job) + ":reports"


def taken_key(job: str) -> str:
    """Key of the hash of the shards or cases that workers have now: index -> seconds charged, time of taking."""
    return job_key(job) + ":taken"


def events_key(job: str) -> str:
    """Key of the stream of a job's events."""
    return job_key(job) + ":events"
