"""Checks that the broker and the store of a process belong to one installation, at its start and before every sweep."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable
from threading import Lock

import redis
from obstore.exceptions import BaseError as StoreError

from .broker import BrokerMonitor
from .errors import InstallationError
from .installation import Installation

log = logging.getLogger(__name__)


class Housekeeping:
    """The check of an installation, and the sweep of blobs that needs it.

    Args:
        installation: Broker and store.
        on_claimed: Called once, when they are known to belong together.
        sweep: The sweep of blobs, which runs only while they belong together.
    """

    def __init__(
        self,
        installation: Installation,
        on_claimed: Callable[[], object] | None = None,
        sweep: Callable[[], object] | None = None,
    ) -> None:
        self._installation, self._on_claimed, self._sweep = installation, on_claimed, sweep
        self._claiming, self._is_broker_checked = Lock(), False

    @property
    def broker(self) -> BrokerMonitor:
        """The state of the broker."""
        return self._installation.broker

    @property
    def is_claimed(self) -> bool:
        """Whether broker and store are known to belong together."""
        return self._installation.identity is not None

    def check(self) -> None:
        """Check at the start; while broker or store are unavailable, `run` checks again.

        Raises:
            InstallationError: If they do not belong together, or cannot be used.
        """
        try:
            self.ensure_claimed()
        except (redis.RedisError, StoreError) as error:
            log.warning("broker and store cannot be checked yet: %s", error)

    def run(self) -> None:
        """Watch the broker, and sweep once both are checked; if they do not belong together, stop this process."""
        if not self.is_claimed:
            try:
                self.ensure_claimed()
            except InstallationError as error:
                log.critical("stopping: %s", error)
                os.kill(os.getpid(), signal.SIGTERM)
                return
        self._installation.broker.status()
        if self._sweep is not None and self._installation.still_belongs():
            self._sweep()

    def ensure_claimed(self) -> None:
        """Check broker and store unless that is done; nothing may be written to the store before.

        Raises:
            InstallationError: If they do not belong together, or cannot be used.
            redis.RedisError, StoreError: If one of them is unavailable.
        """
        with self._claiming:
            if self.is_claimed:
                return
            if not self._is_broker_checked:
                self._installation.broker.check()
                self._is_broker_checked = True
            self._installation.claim()
            if self._on_claimed is not None:
                self._on_claimed()
