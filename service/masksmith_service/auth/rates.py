"""Rate limits: a token bucket for each key."""

from __future__ import annotations

import math

from redis.asyncio import Redis

from masksmith_service.errors import RequestError
from masksmith_state import scripts
from masksmith_wire.errors import Code

from .principal import Principal

BURST_S = 10.0
"""Size of a key's token bucket, in seconds of its request rate."""


async def check_rate(client: Redis, principal: Principal) -> None:
    """Take one token, for one request, out of the key's bucket.

    Raises:
        RequestError: 429, if the bucket is empty.
    """
    rate = principal.quotas.requests_s
    if rate is None:
        return
    wait_s = float(
        await client.eval(scripts.load(__package__)["spend"], 0, principal.key, rate, max(1.0, rate * BURST_S))
    )
    if wait_s > 0:
        detail = f"key {principal.name!r} may send {rate:g} requests a second (requests_s); try again in {wait_s:.1f} s"
        raise RequestError(Code.RATE_LIMITED, detail, retry_after_s=math.ceil(wait_s), limit=rate)
