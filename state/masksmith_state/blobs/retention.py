"""Retention: what has not been used for long expires, and blobs without references are deleted."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from masksmith_state.jobs.records import FINISHED, JobRecords

from .references import BlobReferences
from .store import BlobStore

log = logging.getLogger(__name__)

PERIOD_S = 60.0
ORPHANS_PERIOD_S = 3600.0
ORPHAN_AFTER_S = 3600.0
AT_ONCE = 1000
"""Things of one kind that are deleted in one sweep; the next one goes on."""


@dataclass(frozen=True)
class Swept:
    """What a sweep has deleted."""

    jobs: int = 0
    uploads: int = 0
    results: int = 0
    orphans: int = 0


@dataclass(frozen=True)
class Retention:
    """Sweeps records and store.

    Attributes:
        records: Job records.
        references: Who needs which blob.
        store: The blobs.
        result_age_s: Seconds after its end that a job is forgotten, with its results.
        upload_age_s: Seconds after its last use that a key loses an upload.
        clock: Gives the time; that of the Redis server, since all of its times are, unless given.
    """

    records: JobRecords
    references: BlobReferences
    store: BlobStore
    result_age_s: float
    upload_age_s: float
    clock: Callable[[], float] | None = None

    def sweep_in_turn(self) -> Swept | None:
        """Sweep if it is this process's turn; None if it is not. At most one has it per period."""
        if not self.records.claim_sweep(PERIOD_S, "retention"):
            return None
        return self.sweep(orphans=self.records.claim_sweep(ORPHANS_PERIOD_S, "orphans"))

    def sweep(self, *, orphans: bool = True) -> Swept:
        """Delete what has expired.

        Args:
            orphans: Look through the whole store for blobs that no record knows, as a crash between two steps leaves.
        """
        now = self.records.now() if self.clock is None else self.clock()
        self.references.finish_deletions()
        jobs = self._expire_jobs(now - self.result_age_s)
        results = self.free_results()
        uploads = self._expire_uploads(now - self.upload_age_s)
        swept = Swept(jobs, uploads, results, self._free_orphans(now) if orphans else 0)
        if swept != Swept():
            log.info("deleted %(jobs)d job(s), %(uploads)d upload(s), %(results)d result(s), %(orphans)d orphan(s)",
                     vars(swept))  # fmt: skip
        return swept

    def free_results(self) -> int:
        """Delete results whose last job was deleted; gives their number."""
        keys = cast("list[str]", self.records.redis.zrange("masksmith:unheld", 0, AT_ONCE - 1))
        return sum(self.references.free_result(key) for key in keys)

    def _expire_jobs(self, before: float) -> int:
        jobs = cast("list[str]", self.records.redis.zrangebyscore(FINISHED, "-inf", before, 0, AT_ONCE))
        return sum(self.records.delete(job) for job in jobs)

    def _expire_uploads(self, before: float) -> int:
        members = cast("list[str]", self.records.redis.zrangebyscore("masksmith:uploads", "-inf", before, 0, AT_ONCE))
        pairs = (member.rpartition(":") for member in members)
        return sum(self.references.expire_upload(owner, digest, before) for owner, _, digest in pairs)

    def _free_orphans(self, now: float) -> int:
        # The store's clock may be another one, and what was just written is about to be held.
        before, count = min(now, time.time()) - ORPHAN_AFTER_S, 0
        result, upload = self.references.free_result, self.references.free_upload
        for folder, free in (("tensors", upload), ("masks", result), ("weights", result)):
            for name, written in self.store.list(folder):
                if written < before:
                    count += free(name.rpartition("/")[2].removesuffix(".json"))
        for name, written in self.store.list("statistics"):
            if written < now - self.upload_age_s:
                # Worked out again where it is wanted.
                self.store.delete(name)
                count += 1
        return count
