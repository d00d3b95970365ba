"""Check the keys of the broker that many jobs share.

If a script fails because such a key is damaged, the record of the script's job may be intact.
"""

from __future__ import annotations

from collections.abc import Iterator

import redis

from .redis_keys import FINISHED, IDS, JOBS, LIVE

WHOLE_NUMBER = "string"
"""Redis type of a key whose value is a whole number."""
_TYPES = {
    JOBS: "zset",
    IDS: "zset",
    LIVE: "set",
    FINISHED: "zset",
    "masksmith:uploads": "zset",
    "masksmith:unreferenced_results": "zset",
}
_TYPES_BELOW_OWNER = {"jobs": "zset", "ids": "zset", "live": "set", "bytes": WHOLE_NUMBER, "record_bytes": WHOLE_NUMBER}
"""Types of the keys `masksmith:owner:K:NAME`, by NAME; other names are not checked."""
_HASH_SUFFIXES = (":clocks", ":aged")
"""Ends of the keys `masksmith:fair:...` that are hashes; the others are sorted sets."""


class DamagedBrokerError(redis.ResponseError):
    """A key of the broker that many jobs share has a value of the wrong type, or text that is no whole number.

    Args:
        key: The key.
        actual_type: Redis type of its value.
        expected_type: Redis type that it should have.
    """

    def __init__(self, key: str, actual_type: str, expected_type: str) -> None:
        super().__init__(
            f"the broker's key {key!r} is damaged: a {actual_type}, expected {_name(expected_type)}; jobs wait until "
            "it is deleted, or restored from a backup"
        )


def check_shared_keys(client: redis.Redis) -> None:
    """Check the keys that many jobs share and cannot do without.

    Not checked are counters that scripts start anew if they are damaged, such as `masksmith:fence`.

    Raises:
        DamagedBrokerError: If one of them is damaged; the message names it and says what to do.
    """
    for key, expected_type in _expected_types(client):
        actual_type = str(client.type(key))
        is_no_number = actual_type == expected_type == WHOLE_NUMBER and not str(client.get(key)).lstrip("-").isdecimal()
        if actual_type not in (expected_type, "none") or is_no_number:
            raise DamagedBrokerError(key, actual_type, expected_type)


def _expected_types(client: redis.Redis) -> Iterator[tuple[str, str]]:
    yield from _TYPES.items()
    for key in client.scan_iter(match="masksmith:owner:*", count=1000):
        if (name := key.rpartition(":")[2]) in _TYPES_BELOW_OWNER:
            yield key, _TYPES_BELOW_OWNER[name]
    for key in client.scan_iter(match="masksmith:fair:*", count=1000):
        yield key, "hash" if key.endswith(_HASH_SUFFIXES) else "zset"


def _name(redis_type: str) -> str:
    return "a whole number" if redis_type == "string" else f"a {redis_type}"
