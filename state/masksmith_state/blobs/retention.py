"""Deletes jobs and uploads that have expired, and blobs without references."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import cast

from masksmith_state.jobs.records import JobRecords
from masksmith_state.jobs.redis_keys import FINISHED

from .deletions import count_deletions
from .names import (
    DAMAGED,
    INCOMING,
    PIECE_LISTS,
    RESULTS,
    STATISTICS,
    UPLOADS,
    WEIGHTS,
    is_blob_name,
    is_incoming_name,
    is_sealed_name,
    piece_list_name,
)
from .references import BlobReferences
from .store import BlobStore

log = logging.getLogger(__name__)

PERIOD_S = 60.0
ORPHANS_PERIOD_S = 3600.0
ORPHAN_AFTER_S = 3600.0
"""Age in seconds from which a blob can be an orphan, and seconds from the sweep that finds it to its deletion."""
INCOMING_AFTER_S = 24 * 3600.0
"""Age in seconds at which an upload that is still in `INCOMING` is deleted. The age is large because in a bucket, an
upload is renamed to its digest by a copy, which may take long."""
ORPHANS = "masksmith:orphans"
"""Sorted set of orphans (blobs to which nothing in Redis refers), scored by the time at which a sweep found them."""
MAX_DELETIONS = 1000
"""Limit of the jobs, of the results and of the uploads that one sweep deletes; the next sweep continues."""


@dataclass(frozen=True)
class SweepCounts:
    """Number of deletions of a sweep.

    Attributes:
        jobs: Expired jobs.
        uploads: References of keys to expired uploads.
        results: Results whose last reference was removed.
        orphans: Orphans, old statistics, old blobs that were set aside, lists of digests without a blob, and old
            uploads in `INCOMING`.
    """

    jobs: int = 0
    uploads: int = 0
    results: int = 0
    orphans: int = 0


@dataclass(frozen=True)
class Retention:
    """Deletes expired jobs and uploads, and unreferenced blobs.

    Attributes:
        records: Job records.
        references: Blob references.
        store: The blob store.
        result_age_s: Age, in seconds after the end of a job, at which its record and results are deleted.
        upload_age_s: Age, in seconds after the last use of an upload, at which a key's reference to it is removed; also
            the age at which statistics, and blobs that were set aside, are deleted.
        clock: Returns the time; by default the time of the Redis server, which also sets the timestamps in records.
    """

    records: JobRecords
    references: BlobReferences
    store: BlobStore
    result_age_s: float
    upload_age_s: float
    clock: Callable[[], float] | None = None

    def sweep_if_claimed(self) -> SweepCounts | None:
        """Sweep if this process can claim the sweep of the current period, else return None."""
        if not self.records.claim_sweep(PERIOD_S, "retention"):
            return None
        return self.sweep(orphans=self.records.claim_sweep(ORPHANS_PERIOD_S, "orphans"))

    def sweep(self, *, orphans: bool = True) -> SweepCounts:
        """Delete expired jobs and uploads, and blobs without references.

        Args:
            orphans: Whether to search the whole store for orphans, which a crash between two steps can leave, and to
                delete old files.
        """
        now = self.records.now() if self.clock is None else self.clock()
        self.references.finish_deletions()
        jobs = self._delete_expired_jobs(now - self.result_age_s)
        results = self.delete_unreferenced_results()
        uploads = self._expire_uploads(now - self.upload_age_s)
        counts = SweepCounts(jobs, uploads, results, self._delete_orphans(now) if orphans else 0)
        if counts != SweepCounts():
            log.info("deleted %(jobs)d job(s), %(uploads)d upload(s), %(results)d result(s), %(orphans)d orphan(s)",
                     vars(counts))  # fmt: skip
        return counts

    def delete_unreferenced_results(self) -> int:
        """Delete results whose last reference was removed, at most `MAX_DELETIONS`; returns their number."""
        keys = cast("list[str]", self.records.redis.zrange("masksmith:unreferenced_results", 0, MAX_DELETIONS - 1))
        return count_deletions(self.store, keys, self.references.delete_unreferenced_result)

    def _delete_expired_jobs(self, before: float) -> int:
        jobs = cast("list[str]", self.records.redis.zrangebyscore(FINISHED, "-inf", before, 0, MAX_DELETIONS))
        deleted = [job for job in jobs if self.records.delete(job)]
        for job in deleted:
            log.info("deleted job %s, which has expired", job)
        return len(deleted)

    def _expire_uploads(self, before: float) -> int:
        members = cast(
            "list[str]", self.records.redis.zrangebyscore("masksmith:uploads", "-inf", before, 0, MAX_DELETIONS)
        )

        def expire(member: str) -> bool:
            owner, _, digest = member.rpartition(":")
            return self.references.expire_upload(owner, digest, before)

        return count_deletions(self.store, members, expire)

    def _delete_orphans(self, now: float) -> int:
        """Delete blobs that were orphans in two sweeps at least `ORPHAN_AFTER_S` apart, and old files.

        Only blobs that this program has written can be orphans: those that have the name of a blob, and that are sealed
        or have a list of digests.
        """
        # The clock of the store may differ from the clock of the Redis server, and the reference to a blob that was
        # just written may not exist yet.
        before = min(now, time.time()) - ORPHAN_AFTER_S
        pairs = cast("list[tuple[str, float]]", self.records.redis.zrange(ORPHANS, 0, -1, withscores=True))
        first_seen = dict(pairs)
        orphans = set(self._orphans(before))
        for orphan in orphans - set(first_seen):
            self.records.redis.zadd(ORPHANS, {orphan: now})
            log.info("nothing refers to %s; it is deleted unless that changes", orphan)
        old = [orphan for orphan in orphans & set(first_seen) if first_seen[orphan] <= now - ORPHAN_AFTER_S]
        count = count_deletions(self.store, old, self._delete_orphan)
        # Remove the entries of blobs that are not orphans any more, and of those whose deletion was tried.
        entries_to_remove = [
            orphan for orphan in first_seen if orphan not in orphans or first_seen[orphan] <= now - ORPHAN_AFTER_S
        ]
        if entries_to_remove:
            self.records.redis.zrem(ORPHANS, *entries_to_remove)
        incoming_before = min(now, time.time()) - INCOMING_AFTER_S
        return count + self._delete_old_files(now - self.upload_age_s, before, incoming_before)

    def _delete_orphan(self, orphan: str) -> bool:
        """Delete an orphan, unless something refers to it now; returns whether it was deleted."""
        is_deleted = self.references.delete_unreferenced(orphan)
        if is_deleted:
            log.info("deleted %s, to which nothing referred", orphan)
        return is_deleted

    def _orphans(self, before: float) -> Iterator[str]:
        """Yield `KIND:KEY` of each orphan that was written before a time; a result may come several times."""
        for folder, kind in ((UPLOADS, "upload"), (RESULTS, "result"), (WEIGHTS, "result")):
            for name, written in self.store.list(folder):
                key = name.rpartition("/")[2].removesuffix(".json")
                if not is_blob_name(name) or written >= before or self.references.is_referenced(kind, key):
                    continue
                if is_sealed_name(name) or self.store.size(piece_list_name(name)) is not None:
                    yield f"{kind}:{key}"

    def _delete_old_files(self, before: float, lists_before: float, incoming_before: float) -> int:
        """Delete old statistics (a cache), blobs that were set aside, lists without a blob, and uploads in `INCOMING`.

        Args:
            before: Time before which statistics, and blobs that were set aside, are old.
            lists_before: Time before which lists are old.
            incoming_before: Time before which uploads in `INCOMING`, and their lists, are old.
        """
        store = self.store
        names = [name for name, written in store.list(STATISTICS) if written < before and is_blob_name(name)]
        names += [f"{DAMAGED}/{name}" for name, written in store.list_damaged() if written < before]
        names += [
            name for name, written in store.list(INCOMING) if written < incoming_before and is_incoming_name(name)
        ]
        for name, written in store.list(PIECE_LISTS):
            blob = name.removeprefix(f"{PIECE_LISTS}/")
            is_old_incoming = is_incoming_name(blob) and written < incoming_before
            if is_old_incoming or (is_blob_name(blob) and written < lists_before and store.size(blob) is None):
                names.append(name)

        def delete(name: str) -> bool:
            blob = name.removeprefix(f"{PIECE_LISTS}/")
            if blob != name and is_blob_name(blob) and store.size(blob) is not None:
                return False  # The blob was written after the search, and with it the list.
            store.objects.delete(name)
            log.info("deleted %s", name)
            return True

        return count_deletions(store, names, delete)
