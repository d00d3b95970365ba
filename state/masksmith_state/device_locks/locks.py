"""Locks on devices, across processes, containers and installations: searches share one, a benchmark has it alone.

A benchmark that claims a device keeps new searches off it at once, and begins when those under way have ended; no two
benchmarks ever hold it. Waiting searches get their turn between two cases. Every hold is a lease in Redis, renewed by a
side thread, so the holds of a dead process lapse within seconds.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from uuid import uuid4

import redis

from masksmith_state.scripts import Scripts

POLL_S = 0.1
WAITING_MS = 2000


class DeviceLock:
    """The lock of a device that several processes use.

    Args:
        client: The Redis server.
        identity: Identifies the device, the same in every process that can use it.
        lease_s: Seconds that a hold lasts without renewal.
    """

    def __init__(self, client: redis.Redis, identity: str, lease_s: float = 15.0) -> None:
        self._client, self._scripts = client, Scripts(client, __package__)
        self._lease_ms = int(lease_s * 1000)
        alone, beside, waiting = (f"masksmith:device:{identity}:{part}" for part in ("alone", "beside", "waiting"))
        self._keys = (alone, beside, waiting)

    @contextmanager
    def share(self, check: Callable[[], None]) -> Iterator[None]:
        """Use the device together with other searches, once no benchmark has it; `check` may raise meanwhile."""
        token = uuid4().hex
        while not self._run("enter", token, self._lease_ms, WAITING_MS):
            check()
            time.sleep(POLL_S)
        with self._renewed(token):
            yield

    @contextmanager
    def exclude_others(self, check: Callable[[], None]) -> Iterator[Callable[[], bool]]:
        """Use the device alone; `check` may raise while waiting for it.

        Yields:
            Says whether the hold is intact: what was measured without one does not count.
        """
        token = uuid4().hex
        if self._client.exists(self._keys[2]):
            # Searches that wait try every POLL_S: this pause lets them in.
            time.sleep(3 * POLL_S)
        try:
            while self._run("claim", token, self._lease_ms) != 2:
                check()
                time.sleep(POLL_S)
            with self._renewed(token) as intact:
                yield intact
        finally:
            self._run("leave", token)

    @contextmanager
    def _renewed(self, token: str) -> Iterator[Callable[[], bool]]:
        over, lost = threading.Event(), threading.Event()

        def renew() -> None:
            while not over.wait(self._lease_ms / 5000):
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
            over.set()
            thread.join()
            self._run("leave", token)

    def _run(self, script: str, *args: str | int) -> int:
        return int(self._scripts.run(script, *args, keys=self._keys))
