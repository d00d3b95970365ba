"""Checks, at the start of a process and before each sweep of blobs, that broker and store belong together."""

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
    """Checks the installation of a process, and runs the sweep of blobs.

    Args:
        installation: Broker and store.
        delete_leftovers: Deletes leftovers of dead processes in the store; called as soon as broker and store are known
            to belong together. If it fails because the store cannot be read or written, the error is logged, and `run`
            calls it again.
        sweep: The sweep of blobs; called only while broker and store belong together.
    """

    def __init__(
        self,
        installation: Installation,
        delete_leftovers: Callable[[], object] | None = None,
        sweep: Callable[[], object] | None = None,
    ) -> None:
        self._installation, self._delete_leftovers, self._sweep = installation, delete_leftovers, sweep
        self._lock, self._is_broker_checked = Lock(), False

    @property
    def broker(self) -> BrokerMonitor:
        """Monitor of the broker."""
        return self._installation.broker

    @property
    def is_store_claimed(self) -> bool:
        """Whether broker and store are known to belong together."""
        return self._installation.identity is not None

    def check(self) -> None:
        """Check broker and store when the process starts.

        If one of them is unavailable at that time, a warning is logged, and `run` checks again.

        Raises:
            InstallationError: If they do not belong together, or one is unsuitable, such as a broker that evicts keys.
        """
        try:
            self.ensure_store_claimed()
        except (redis.RedisError, StoreError) as error:
            log.warning("broker and store cannot be checked yet: %s", error)

    def run(self) -> None:
        """Check broker and store, unless an earlier check succeeded; log new problems of the broker; run the sweep.

        If the check fails with an `InstallationError`, the process is stopped by SIGTERM. If broker and store belonged
        together at the check and no longer do, or their identity is damaged since, the sweep is left out, and the
        process goes on.

        Raises:
            redis.RedisError, StoreError: If broker or store is unavailable.
        """
        if not self.is_store_claimed:
            try:
                self.ensure_store_claimed()
            except InstallationError as error:
                log.critical("stopping: %s", error)
                os.kill(os.getpid(), signal.SIGTERM)
                return
        with self._lock:
            self._delete_leftovers_once()
        self._installation.broker.status()  # logs new problems of the broker
        if self._sweep is not None and self._installation.is_still_claimed():
            self._sweep()

    def ensure_store_claimed(self) -> None:
        """Check that broker and store belong together, and write an identity to both if both are new.

        Must be called before anything else is written to the store; after it has succeeded, it does nothing.

        Raises:
            InstallationError: If they do not belong together, or one is unsuitable, such as a broker that evicts keys.
            redis.RedisError, StoreError: If one of them is unavailable.
        """
        with self._lock:
            if self.is_store_claimed:
                return
            if not self._is_broker_checked:
                self._installation.broker.check()
                self._is_broker_checked = True
            self._installation.claim()
            self._delete_leftovers_once()

    def _delete_leftovers_once(self) -> None:
        """Call `delete_leftovers`, unless there is none or it has succeeded already."""
        if self._delete_leftovers is None:
            return
        try:
            self._delete_leftovers()
        except (OSError, StoreError, redis.RedisError) as error:
            log.warning("leftovers in the store cannot be deleted yet: %s", error)
        else:
            self._delete_leftovers = None
