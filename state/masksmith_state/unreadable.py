"""List in Redis of the latest messages and records that could not be read, each with the reason.

Callers remove the originals, so that reading them is not tried again.
"""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from typing import cast

import redis

from .telemetry.counters import COUNTS, field_name

log = logging.getLogger(__name__)

UNREADABLE = "masksmith:unreadable"
"""Redis key of the list: JSON objects, newest first."""
MAX_ENTRIES = 100
"""Number of entries of the list that are kept."""
MAX_TEXT = 2**16
"""Number of characters of a message or record that are kept."""
COPIES_KEPT_S = 30 * 86_400
"""Seconds for which `jobs/unreadable_records` keeps its copies of a job's Redis hashes."""


def set_aside(client: redis.Redis, kind: str, name: str, reason: str, text: str = "") -> None:
    """Add a message or record to the list, count it, and log it; the caller removes the original.

    Args:
        client: Redis client.
        kind: `message`, `job`, `worker` or `delivery`.
        name: Queue of the message, id of the job, name of the worker, or tag of the delivery; it is cut if it is long.
        reason: Why it cannot be read; it is cut if it is long.
        text: Content of the message or record, or the Redis keys of its copies; `MAX_TEXT` characters are kept.
    """
    entry = {
        "kind": kind,
        "name": name[:200],
        "reason": reason[:500],
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "text": text[:MAX_TEXT],
    }
    with client.pipeline(transaction=True) as pipe:
        pipe.lpush(UNREADABLE, json.dumps(entry))
        pipe.ltrim(UNREADABLE, 0, MAX_ENTRIES - 1)
        pipe.hincrbyfloat(COUNTS, field_name("unreadable", kind), 1)
        # List and counter are only for operators: a damaged one must not stop a worker.
        pipe.execute(raise_on_error=False)
    log.error(
        "%s %s cannot be read and was set aside in %s: %s", kind, ascii(name[:200]), UNREADABLE, ascii(reason[:500])
    )


def entries(client: redis.Redis) -> list[dict[str, str]]:
    """Read the list, newest first."""
    return [json.loads(text) for text in cast("list[str]", client.lrange(UNREADABLE, 0, -1))]
