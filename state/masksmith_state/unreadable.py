"""List in Redis of the latest messages and records that could not be read, each with the reason.

Callers remove the originals, so that reading them is not tried again.
"""

from __future__ import annotations

import json
import logging
import uuid
from datetime import UTC, datetime
from typing import cast

import redis

from masksmith_wire.json_text import parse_json

from .keys import is_wrong_type
from .telemetry.counters import COUNTS, field_name

log = logging.getLogger(__name__)

UNREADABLE = "masksmith:unreadable"
"""Redis key of the list: JSON objects, newest first."""
MAX_ENTRIES = 100
"""Number of entries of the list that are kept."""
MAX_TEXT = 2**16
"""Number of characters of a message or record that are kept."""
MAX_LOGGED = 2000
"""Number of characters of a message or record that are logged if it cannot be added to the list."""
COPIES_KEPT_S = 30 * 86_400
"""Seconds for which a damaged list, and copies of a job's Redis hashes (`jobs/unreadable_records`), are kept."""


def set_aside(client: redis.Redis, kind: str, name: str, reason: str, text: str = "") -> None:
    """Add a message or record to the list, count it, and log it; the caller removes the original.

    If the broker refuses to write, as a full one does, the beginning of the text is logged instead.

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
        # List and counter are only for operators: a damaged list or counter, or a full broker, must not stop a worker.
        try:
            replies = pipe.execute(raise_on_error=False)
        except redis.ResponseError as error:
            log.error(
                "%s %s cannot be read (%s), and was not set aside in %s (%s); it begins: %s",
                kind, ascii(name[:200]), ascii(reason[:500]), UNREADABLE, ascii(str(error)), ascii(text[:MAX_LOGGED]),
            )  # fmt: skip
            return
    if isinstance(replies[0], redis.ResponseError):
        _start_new_list(client, json.dumps(entry))
    log.error(
        "%s %s cannot be read and was set aside in %s: %s", kind, ascii(name[:200]), UNREADABLE, ascii(reason[:500])
    )


def _start_new_list(client: redis.Redis, entry: str) -> None:
    """Rename the key `UNREADABLE`, whose value is no list, and begin a new list with an entry."""
    copy = f"masksmith:aside:{UNREADABLE}:{uuid.uuid4().hex}"
    with client.pipeline(transaction=True) as pipe:
        pipe.rename(UNREADABLE, copy)
        pipe.expire(copy, COPIES_KEPT_S)
        pipe.lpush(UNREADABLE, entry)
        pipe.execute(raise_on_error=False)
    log.error("the broker's key %r was damaged (no list): it was renamed to %r; a new list was begun", UNREADABLE, copy)


def entries(client: redis.Redis) -> list[dict[str, str]]:
    """Read the list, newest first.

    An entry that cannot be read is replaced by one of the kind `entry`. If the value of the key `UNREADABLE` is no
    list, the result is a single entry of the kind `list`.
    """
    try:
        texts = cast("list[str]", client.lrange(UNREADABLE, 0, -1))
    except redis.ResponseError as error:
        if not is_wrong_type(error):
            raise
        return [_damage("list", f"the broker's key {UNREADABLE!r} is damaged: it is no list")]
    return [_parse(text) for text in texts]


def _parse(text: str) -> dict[str, str]:
    """Parse an entry of the list; if it cannot be read, return one that says so."""
    try:
        entry = parse_json(text)
    except ValueError as error:
        return _damage("entry", f"this entry of the list cannot be read: {error}", text)
    if not isinstance(entry, dict) or not all(isinstance(value, str) for value in entry.values()):
        return _damage("entry", "this entry of the list cannot be read: it is no map of texts", text)
    return entry


def _damage(kind: str, reason: str, text: str = "") -> dict[str, str]:
    return {"kind": kind, "name": UNREADABLE, "reason": reason, "at": "", "text": text}
