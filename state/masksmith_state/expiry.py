"""Expiry of Redis keys after the broker's clock was set back.

Redis notes the time at which a key expires, so a key lives longer by as much as the clock is set back later.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

import redis


def limit_expiry(client: redis.Redis, keys: Iterable[str], lifetime_s: float) -> None:
    """Let keys that would live longer than `lifetime_s`, counted from now, expire after this time.

    For keys that are always set with this lifetime, such as locks and heartbeats: one that would live longer was set
    before the clock was set back.
    """
    names, lifetime_ms = list(keys), int(lifetime_s * 1000)
    with client.pipeline(transaction=False) as pipe:
        for name in names:
            pipe.pttl(name)
        left_ms = cast("list[int]", pipe.execute())
    for name, left in zip(names, left_ms, strict=True):
        if left > lifetime_ms:
            client.pexpire(name, lifetime_ms)
