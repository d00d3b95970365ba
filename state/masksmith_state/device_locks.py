"""Devices shared out: searches side by side, a benchmark alone. Across processes, containers and installations.

A benchmark that takes a device keeps new searches off it at once, and begins when those under way have ended; no two
ever hold it. Searches that wait get their turn between two cases. Every hold is a lease in Redis, renewed by a side
thread, so what dies lets go within seconds.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast
from uuid import uuid4

import redis

POLL_S = 0.1
WAITING_MS = 2000

_NOW = """
local at = redis.call('TIME')
local ms = tonumber(at[1]) * 1000 + math.floor(tonumber(at[2]) / 1000)
local alone, beside, waiting = KEYS[1], KEYS[2], KEYS[3]
redis.call('ZREMRANGEBYSCORE', beside, '-inf', ms)
"""

# ARGV: token, lease in ms, ms that a search which waits is remembered. Answers 1 if the search may go on.
_ENTER = (
    _NOW
    + """
if redis.call('EXISTS', alone) == 1 then
  redis.call('SET', waiting, '1', 'PX', ARGV[3])
  return 0
end
redis.call('ZADD', beside, ms + tonumber(ARGV[2]), ARGV[1])
return 1
"""
)

# ARGV: token, lease in ms. Answers 2 if the device is the benchmark's alone, 1 if searches must still end, 0 if
# another benchmark holds it.
_CLAIM = (
    _NOW
    + """
local holder = redis.call('GET', alone)
if holder and holder ~= ARGV[1] then return 0 end
redis.call('SET', alone, ARGV[1], 'PX', ARGV[2])
return redis.call('ZCARD', beside) == 0 and 2 or 1
"""
)

# ARGV: token, lease in ms. Answers 1 if the hold was still there.
_RENEW = (
    _NOW
    + """
if redis.call('GET', alone) == ARGV[1] then return redis.call('PEXPIRE', alone, ARGV[2]) end
if redis.call('ZSCORE', beside, ARGV[1]) then
  redis.call('ZADD', beside, ms + tonumber(ARGV[2]), ARGV[1])
  return 1
end
return 0
"""
)

# ARGV: token.
_LEAVE = (
    _NOW
    + """
if redis.call('GET', alone) == ARGV[1] then redis.call('DEL', alone) end
redis.call('ZREM', beside, ARGV[1])
return 1
"""
)


class LostDeviceError(Exception):
    """The device's lease lapsed while it was held: whatever was measured since may have had company."""


class Device:
    """A device that several processes use.

    Args:
        client: The Redis server.
        identity: Names the device, the same in every process that can use it.
        lease_s: Seconds that a hold lasts without renewal.
    """

    def __init__(self, client: redis.Redis, identity: str, lease_s: float = 15.0) -> None:
        self._client = client
        self._lease_ms = int(lease_s * 1000)
        self._keys = [f"masksmith:device:{identity}:{part}" for part in ("alone", "beside", "waiting")]
        self._scripts = {
            name: client.register_script(text)
            for name, text in (("enter", _ENTER), ("claim", _CLAIM), ("renew", _RENEW), ("leave", _LEAVE))
        }

    @contextmanager
    def beside_others(self, check: Callable[[], None]) -> Iterator[None]:
        """Use the device together with other searches, once no benchmark has it; `check` may raise meanwhile."""
        token = uuid4().hex
        while not self._call("enter", token, self._lease_ms, WAITING_MS):
            check()
            time.sleep(POLL_S)
        with self._held(token):
            yield

    @contextmanager
    def alone(self, check: Callable[[], None]) -> Iterator[Callable[[], bool]]:
        """Use the device with nobody else on it; `check` may raise while it is being waited for.

        Yields:
            Says whether the hold is intact: what was measured without one does not count.
        """
        token = uuid4().hex
        if self._client.exists(self._keys[2]):
            # Searches that wait look every POLL_S: this leaves the door open for them.
            time.sleep(3 * POLL_S)
        try:
            while self._call("claim", token, self._lease_ms) != 2:
                check()
                time.sleep(POLL_S)
            with self._held(token) as intact:
                yield intact
        finally:
            self._call("leave", token)

    @contextmanager
    def _held(self, token: str) -> Iterator[Callable[[], bool]]:
        over, lost = threading.Event(), threading.Event()

        def renew() -> None:
            while not over.wait(self._lease_ms / 5000):
                try:
                    if not self._call("renew", token, self._lease_ms):
                        lost.set()
                        return
                except redis.RedisError:
                    continue

        thread = threading.Thread(target=renew, name="device", daemon=True)
        thread.start()
        try:
            yield lambda: not lost.is_set() and bool(self._call("renew", token, self._lease_ms))
        finally:
            over.set()
            thread.join()
            self._call("leave", token)

    def _call(self, name: str, *args: Any) -> int:
        return int(cast("int", self._scripts[name](keys=self._keys, args=list(args))))
