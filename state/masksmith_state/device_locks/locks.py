"""Readers-writer locks on devices, across all processes and containers that use the same Redis.

Masks jobs acquire a device in shared mode, benchmarks in exclusive mode. A benchmark that requests a device blocks new
masks jobs at once, and begins when the running ones have ended. It holds the device for a limited time. Between two
cases of a benchmark, masks jobs that wait get the device for as long as the last case held it. Every acquired lock is a
lease in Redis. A side thread renews the lease, so the locks of a dead process expire within seconds.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from uuid import uuid4

import redis

from masksmith_state.scripts import Scripts

POLL_S = 0.1
WAITING_MS = 2000
"""Milliseconds for which a waiting masks job is announced to benchmarks."""
EXCLUSIVE_LIMIT_S = 300.0
"""Seconds after which a device that is held in exclusive mode is released, although its holder goes on."""
IDLE_S = 1.0
"""Seconds after which a benchmark no longer gives way, if no masks job holds the device or waits for it."""
HELD = 2
"""Reply of `acquire_exclusive.lua` when the benchmark that calls it has reserved the device, and the last running masks
job has released it. With any other reply, the benchmark must wait."""


class DeviceLock:
    """The lock of a device that several processes use.

    Args:
        client: Redis client.
        identity: Identifier of the device, the same in every process that can use it.
        lease_s: Seconds after which an acquired lock expires if it is not renewed.
    """

    def __init__(self, client: redis.Redis, identity: str, lease_s: float = 15.0) -> None:
        self._client, self._scripts = client, Scripts(client, __package__)
        self._lease_ms = int(lease_s * 1000)
        exclusive, shared, waiting = (
            f"masksmith:device:{identity}:{kind}" for kind in ("exclusive", "shared", "waiting")
        )
        self._keys, self._shared_key, self._waiting_key = (exclusive, shared, waiting), shared, waiting
        self._last_exclusive_s = 0.0

    @contextmanager
    def shared(self, check: Callable[[], None]) -> Iterator[None]:
        """Hold the device in shared mode, as soon as no benchmark holds it or waits for it.

        `check` is called while waiting, and may raise.
        """
        token = self._new_token()
        while not self._run("acquire_shared", token, self._lease_ms, WAITING_MS):
            check()
            time.sleep(POLL_S)
        with self._renewed_then_released(token, math.inf):
            yield

    @contextmanager
    def exclusive(self, check: Callable[[], None]) -> Iterator[Callable[[], bool]]:
        """Hold the device in exclusive mode; `check` is called while waiting, and may raise.

        After `EXCLUSIVE_LIMIT_S` the lock is lost.

        Yields:
            A function that returns whether the lock is still held; if not, measurements must be repeated.
        """
        token = self._new_token()
        self._give_way(check)
        try:
            while self._run("acquire_exclusive", token, self._lease_ms) != HELD:
                check()
                time.sleep(POLL_S)
            acquired_at = time.monotonic()
            try:
                with self._renewed_then_released(token, EXCLUSIVE_LIMIT_S) as is_held:
                    yield is_held
            finally:
                self._last_exclusive_s = min(time.monotonic() - acquired_at, EXCLUSIVE_LIMIT_S)
        finally:
            # Also if `check` raised, since a benchmark keeps masks jobs off the device even while it only waits.
            self._run("release", token)

    def _give_way(self, check: Callable[[], None]) -> None:
        """Leave the device to masks jobs that wait, for as long as this object held it the last time."""
        if not self._client.exists(self._waiting_key):
            return
        # Masks jobs that wait retry every POLL_S: this pause lets them acquire the device.
        time.sleep(3 * POLL_S)
        busy_at = time.monotonic()
        end = busy_at + self._last_exclusive_s
        while (now := time.monotonic()) < end and now - busy_at < IDLE_S:
            check()
            if self._client.exists(self._shared_key, self._waiting_key):
                busy_at = now
            time.sleep(POLL_S)

    @contextmanager
    def _renewed_then_released(self, token: str, limit_s: float) -> Iterator[Callable[[], bool]]:
        """Renew the lock during the context, and release it at the end, or after `limit_s`.

        Yields:
            A function that returns whether the lock is still held.
        """
        stop, lost = threading.Event(), threading.Event()
        end = time.monotonic() + limit_s

        def renew() -> None:
            renewal_s = self._lease_ms / 1000 / 5  # five times per lease
            while not stop.wait(min(renewal_s, max(0.0, end - time.monotonic()))):
                if time.monotonic() >= end:
                    lost.set()
                    with suppress(redis.RedisError):  # The lease expires in any case.
                        self._run("release", token)
                    return
                try:
                    if not self._run("renew", token, self._lease_ms):
                        lost.set()
                        return
                except redis.RedisError:
                    continue

        thread = threading.Thread(target=renew, name="device", daemon=True)
        thread.start()
        try:
            yield lambda: not lost.is_set() and bool(self._run("renew", token, self._lease_ms))
        finally:
            stop.set()
            thread.join()
            self._run("release", token)

    def _new_token(self) -> str:
        """Token that contains the length of the lease.

        If a lease has more time left than its length, the clock was set back meanwhile; the scripts shorten the lease.
        """
        return f"{uuid4().hex}:{self._lease_ms}"

    def _run(self, script: str, *args: str | int) -> int:
        return int(self._scripts.run(script, *args, keys=self._keys))
