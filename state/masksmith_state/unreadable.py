"""List of messages and records that cannot be read; they are moved there, with the reason, and are not tried again."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from typing import cast

import redis

from .telemetry.counters import COUNTS, field_name

log = logging.getLogger(__name__)

UNREADABLE = "masksmith:unreadable"
"""List of the messages and records that were set aside, newest first, as JSON objects."""
MAX_ENTRIES = 100
MAX_TEXT = 2**16
"""Characters of a message or record that are kept."""
KEPT_S = 30 * 86_400
"""Seconds for which `jobs/unreadable_records` keeps its copy of a record."""


def set_aside(client: redis.Redis, kind: str, name: str, reason: str, text: str = "") -> None:
    """Add an entry to the list, count it, and log it.

    Args:
        client: Redis client.
        kind: `message`, `job`, `worker` or `delivery`.
        name: Queue of the message, name of the record, or tag of the delivery.
        reason: Why it cannot be read.
        text: Content of the message or record, or the keys of its copies; the first `MAX_TEXT` characters are kept.
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
