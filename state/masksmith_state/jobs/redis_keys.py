"""Redis keys of job records; `lua/_prelude.lua` describes all of them."""

from __future__ import annotations

import re
import secrets
from datetime import UTC, datetime

from masksmith_wire.digests import digest_bytes

JOBS, IDS, LIVE, FINISHED = "masksmith:jobs", "masksmith:ids", "masksmith:live", "masksmith:finished"
"""Sorted sets of all jobs by creation and by id, set of live jobs, and sorted set of jobs that have ended."""
ENDED = "masksmith:ended"
"""Channel to which the id of every job that ends is published."""

TIMESTAMP_DIGITS = 11
ID_LENGTH = TIMESTAMP_DIGITS + 16
"""Hex digits of a job's id: the time of its creation in milliseconds, then 64 random bits."""
_JOB_ID = re.compile(rf"[0-9a-f]{{{ID_LENGTH}}}")


def new_job_id() -> str:
    """Make the id of a new job."""
    return f"{int(datetime.now(UTC).timestamp() * 1000):0{TIMESTAMP_DIGITS}x}{secrets.token_hex(8)}"


def is_job_id(text: str) -> bool:
    """Whether a text has the form of a job's id; no other text may become part of a Redis key."""
    return _JOB_ID.fullmatch(text) is not None


def job_key(job: str) -> str:
    """Key of the hash of a job's fields; the functions below return keys, too."""
    return f"masksmith:job:{job}"


def output_lock_key(location: str) -> str:
    """Lock of an output while a job that writes it is being created."""
    return f"masksmith:output:{digest_bytes(location.encode())}"


def parts_key(job: str) -> str:
    """Hash of a job's shards or cases, by index."""
    return job_key(job) + ":shards"


def reports_key(job: str) -> str:
    """Hash of the reports of finished shards or cases, by index."""
    return job_key(job) + ":reports"


def taken_key(job: str) -> str:
    """Hash of the shards or cases that workers have taken and not finished, by index."""
    return job_key(job) + ":taken"


def events_key(job: str) -> str:
    """Stream of a job's events."""
    return job_key(job) + ":events"
