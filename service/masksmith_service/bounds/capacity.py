"""Capacities: limited amounts, such as memory, that requests acquire and release.

The requests of one API key can hold only a share.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from masksmith_service.errors import RequestError
from masksmith_wire.errors import Code

RETRY_AFTER_S = 2
"""Seconds after which a client that was refused may try again."""


class Capacity:
    """An amount that the requests of a process share; its methods must be called on the event loop.

    Args:
        bound: Name of the bound, for the error.
        total: The whole amount. A key can hold half of it, but at least 1, so that other keys are served at the same
            time. Requests without a key, if none is required, can hold all of it.
        wait_s: Seconds that a request waits before it is refused.

    Attributes:
        held_by_key: The amount that each key holds.
    """

    def __init__(self, bound: str, total: int, wait_s: float = 0.0) -> None:
        self.bound, self.total, self._wait_s = bound, total, wait_s
        self.held_by_key: Counter[str] = Counter()
        self._changed: asyncio.Event = asyncio.Event()

    async def acquire(self, key: str, amount: int) -> None:
        """Acquire an amount for a key (empty if no key is required); waits at most `wait_s`.

        Raises:
            RequestError: 429, if the key would hold more than its share; 503, if all keys together would hold too much.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(self._wait_s):
                while not self._has_room(key, amount):
                    self._changed.clear()
                    await self._changed.wait()
        # An amount that is released just as the wait ends is acquired, too.
        if not self._has_room(key, amount):
            raise self._refusal(key, amount)
        self.held_by_key[key] += amount

    def release(self, key: str, amount: int) -> None:
        """Release an amount."""
        self.held_by_key[key] -= amount
        if not self.held_by_key[key]:
            del self.held_by_key[key]
        self._changed.set()

    @asynccontextmanager
    async def hold(self, key: str, amount: int) -> AsyncIterator[None]:
        """Hold an amount within the block; raises as `acquire` does."""
        await self.acquire(key, amount)
        try:
            yield
        finally:
            self.release(key, amount)

    def share_of(self, key: str) -> int:
        """Return how much a key can hold; the empty key can hold all."""
        return max(1, self.total // 2) if key else self.total

    def _has_room(self, key: str, amount: int) -> bool:
        return self.held_by_key[key] + amount <= self.share_of(key) and self.held_by_key.total() + amount <= self.total

    def _refusal(self, key: str, amount: int) -> RequestError:
        """Return the error for an amount for which there is no room."""
        exceeds_share = bool(key) and self.held_by_key[key] + amount > self.share_of(key)
        limit = self.share_of(key) if exceeds_share else self.total
        free = limit - (self.held_by_key[key] if exceeds_share else self.held_by_key.total())
        requests = "requests of this key" if exceeds_share else "requests"
        detail = (
            f"the request needs {amount} of {self.bound}, and {requests} that are being answered leave "
            f"{free} of {limit}; try again shortly"
        )
        status = 429 if exceeds_share else 503
        return RequestError(Code.OVERLOADED, detail, status=status, retry_after_s=RETRY_AFTER_S, bound=self.bound)
