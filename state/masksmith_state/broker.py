"""Monitors the broker: whether it may lose data or refuse work, and how much of its memory is free."""

from __future__ import annotations

import logging
import re
import time
from dataclasses import dataclass
from threading import Lock
from typing import Any

import redis

from .errors import BrokerFullError, InstallationError

log = logging.getLogger(__name__)

MAX_USED_SHARE = 0.85
"""Share of `maxmemory` above which no jobs or uploads are added; the rest is for completing and deleting them."""
FRESH_S = 1.0
"""Seconds for which a reading is reused."""


@dataclass(frozen=True)
class BrokerStatus:
    """A reading of the broker's state.

    Attributes:
        used_bytes: Memory in use.
        max_bytes: `maxmemory`; 0 if there is no limit.
        policy: `maxmemory-policy`; empty if it cannot be read.
        is_durable: Whether changes are written to disk; True if the settings cannot be read.
        failed_writes: Fields of `INFO` that report a failed last write, of the append-only file or of a snapshot,
            separated by commas. Kinds of writes that are off or unknown are left out.
    """

    used_bytes: int
    max_bytes: int
    policy: str
    is_durable: bool
    failed_writes: str

    @property
    def evicts(self) -> bool:
        """Whether keys are deleted when the memory is full."""
        return self.policy not in ("", "noeviction")

    @property
    def room_bytes(self) -> float:
        """Bytes that jobs and uploads may add; 0 or negative if they may add none, infinite if there is no limit."""
        return MAX_USED_SHARE * self.max_bytes - self.used_bytes if self.max_bytes else float("inf")

    @property
    def problems(self) -> list[str]:
        """Reasons why work may be lost or refused."""
        problems = []
        if self.evicts:
            problems.append(f"it evicts keys when its memory is full (maxmemory-policy {self.policy})")
        if self.failed_writes:
            problems.append(f"its last write to disk has failed ({self.failed_writes})")
        if self.room_bytes <= 0:
            problems.append(f"it takes no jobs: {self.used_bytes} of {self.max_bytes} bytes are in use (maxmemory)")
        return problems


class BrokerMonitor:
    """Reads the broker's state, and logs changes.

    Args:
        client: Redis client, with `decode_responses`.
    """

    def __init__(self, client: redis.Redis) -> None:
        self._redis, self._lock = client, Lock()
        self._read_at, self._status = float("-inf"), BrokerStatus(0, 0, "", True, "")
        self._last_problems: list[str] = []

    def check(self) -> None:
        """Check at the start that the broker evicts no keys, and warn if it persists nothing or has no memory limit.

        Raises:
            InstallationError: If it evicts keys.
        """
        status = self.status()
        if status.evicts:
            raise InstallationError(
                f"the broker evicts keys when its memory is full (maxmemory-policy {status.policy}), so that jobs "
                "and keys are lost: set maxmemory-policy to noeviction"
            )
        if not status.is_durable:
            log.warning("the broker persists nothing (appendonly no, save ''): a restart loses all jobs")
        if not status.max_bytes:
            log.warning("the broker's memory has no limit (maxmemory 0): set one")

    def status(self) -> BrokerStatus:
        """Return the state, read at most once in `FRESH_S` seconds.

        Problems are logged if their kinds differ from those of the previous reading; the end of all problems is logged,
        too.

        Raises:
            redis.RedisError: If the broker does not answer.
        """
        with self._lock:
            if time.monotonic() - self._read_at >= FRESH_S:
                self._status = self._read()
                self._read_at = time.monotonic()
                self._log(self._status.problems)
            return self._status

    def require_room(self, wanted_bytes: int) -> None:
        """Check that the broker has room for a record of this size.

        Raises:
            BrokerFullError: If it does not have the room.
        """
        status = self.status()
        if status.room_bytes < wanted_bytes:
            raise BrokerFullError(status.used_bytes, status.max_bytes)

    def _read(self) -> BrokerStatus:
        info: dict[str, Any] = dict(self._redis.info("memory")) | dict(self._redis.info("persistence"))
        settings = {name: self._setting(name) for name in ("maxmemory-policy", "appendonly", "save")}
        policy = str(info.get("maxmemory_policy", settings["maxmemory-policy"]))
        is_durable = settings["appendonly"] != "no" or bool(settings["save"])
        failed = [
            name
            for name, setting in (("aof_last_write_status", "appendonly"), ("rdb_last_bgsave_status", "save"))
            if info.get(name, "ok") != "ok" and settings[setting] not in ("", "no")
        ]
        used, limit = int(info.get("used_memory", 0)), int(info.get("maxmemory", 0))
        return BrokerStatus(used, limit, policy, is_durable, ", ".join(failed))

    def _setting(self, name: str) -> str:
        try:
            return str(dict(self._redis.config_get(name)).get(name, ""))
        except redis.ResponseError as error:
            # A managed server may forbid its clients to read settings.
            log.debug("the broker's %s cannot be read: %s", name, error)
            return ""

    def _log(self, problems: list[str]) -> None:
        kinds_have_changed = _kinds(problems) != _kinds(self._last_problems)
        if problems and kinds_have_changed:
            log.error("the broker may lose or refuse work: %s", "; ".join(problems))
        elif self._last_problems and not problems:
            log.warning("the broker has recovered")
        self._last_problems = problems


def _kinds(problems: list[str]) -> list[str]:
    """Return the texts up to their first digit, since the numbers in the text of a lasting problem may change."""
    return [re.split("[0-9]", problem, maxsplit=1)[0] for problem in problems]
