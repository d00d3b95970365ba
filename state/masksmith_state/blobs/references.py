"""Tracks references to blobs, and deletes blobs without references.

An upload D is referenced by the API keys K that sent it, and by the live jobs J that read it; a result R by the jobs
that have it as their own result, and by the live jobs that read it, as previous masks or to measure it. In Redis:

- `masksmith:upload:D` (hash: `size`), `:owners` and `:jobs` (sets); `masksmith:uploads` orders `K:D` by last use;
- `masksmith:result:R` is the set of the jobs that refer to a result: `J` has it as its own result, `J:reader` reads it;
- `masksmith:job:J:results` is the set of a job's own results; the job's field `earlier_results` has the keys of the
  results that it reads;
- `masksmith:unreferenced_results` lists results without a reference;
- `masksmith:owner:K:record_bytes` is the estimated number of bytes that the records of a key's uploads and jobs take;
- `masksmith:owner:K:bytes` is the number of bytes that a key keeps: its uploads, and the results of its jobs;
- `masksmith:tombstones` (hash: blob -> token) lists the blobs that are being deleted, and the missing uploads whose
  references are being removed. No reference to a blob in this hash can be added.

A blob is deleted in three steps: set its tombstone if it has no reference and no other process is deleting it (one
atomic script), delete it, clear the tombstone if its token is still the one that was set. A reader of a result adds a
reference before it checks that the result exists. A writer of an upload adds a reference after writing, and then checks
that the upload still exists: if it was deleted in between, the client must send it again.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Iterable
from enum import StrEnum

import redis

from masksmith_state.expiry import limit_expiry
from masksmith_state.jobs.shared_keys import WHOLE_NUMBER, DamagedBrokerError
from masksmith_state.scripts import Scripts

from .deletions import count_deletions
from .names import result_name, result_report_name, upload_name, weights_name
from .store import BlobStore

log = logging.getLogger(__name__)

BACKUP, DEFERRED = "masksmith:backup", "masksmith:deferred"
"""Redis key that exists while a backup runs, and the set of the blobs that are to be deleted after the backup."""
BACKUP_LOCK_S = 60
"""Seconds after which the key `BACKUP` expires, unless it is renewed."""
TOMBSTONE_TIMEOUT_S = 60.0
"""Time after which the process that set a tombstone is taken to have stopped."""
POLL_S = 0.05
"""Pause between two tries to add a reference to a blob that is being deleted."""


class LinkOutcome(StrEnum):
    """Outcome of adding a key's reference to an upload."""

    NEW = "new"
    KNOWN = "known"
    FULL = "full"
    RECORDS_FULL = "records_full"
    LOST = "lost"


class BlobReferences:
    """Adds and removes references to blobs, and deletes blobs without references.

    `owner` is an API key; `key` identifies a result (in `is_referenced`: an upload or a result).

    Args:
        client: Redis client of the job records, with `decode_responses`.
        store: The blob store, which no other installation may use.
    """

    def __init__(self, client: redis.Redis, store: BlobStore) -> None:
        self._redis, self._store, self._scripts = client, store, Scripts(client, __package__)

    def bytes_of(self, owner: str) -> int:
        """Number of bytes that a key keeps.

        Raises:
            DamagedBrokerError: If the value in the broker is no whole number.
        """
        redis_key = f"masksmith:owner:{owner}:bytes"
        try:
            return int(self._redis.get(redis_key) or 0)
        except ValueError:
            raise DamagedBrokerError(redis_key, "string", WHOLE_NUMBER) from None

    def link(
        self, owner: str, digest: str, size: int, max_bytes: int | None, max_record_bytes: int | None = None
    ) -> LinkOutcome:
        """Add a key's reference to an upload that it has sent, after the upload was written.

        Args:
            owner: The key.
            digest: Digest of the upload.
            size: Size of the upload in bytes.
            max_bytes: Limit of the bytes that the key keeps, or None.
            max_record_bytes: Limit of the bytes of the key's records in the broker, or None.

        Returns:
            `NEW`; `KNOWN` if the key had the reference already; `FULL` or `RECORDS_FULL` if `max_bytes` or
            `max_record_bytes` would be exceeded, then the upload is deleted unless it is referenced; `LOST` if the
            upload was deleted meanwhile, or another process has been deleting it for more than `TOMBSTONE_TIMEOUT_S`.
        """
        limits = [-1 if limit is None else limit for limit in (max_bytes, max_record_bytes)]
        deadline = time.monotonic() + TOMBSTONE_TIMEOUT_S
        while (outcome := self._scripts.run("link", owner, digest, size, *limits)) == "tombstone":
            if time.monotonic() > deadline:
                return LinkOutcome.LOST
            time.sleep(POLL_S)
        if outcome in (LinkOutcome.FULL, LinkOutcome.RECORDS_FULL):
            self.delete_unreferenced_upload(digest)
        elif self._store.size(upload_name(digest)) is None and self.forget_missing_upload(digest):
            return LinkOutcome.LOST
        return LinkOutcome(outcome)

    def touch(self, owner: str, digest: str, *, any_owner: bool) -> int | None:
        """Record that a key uses an upload, and return the size of the upload; None if the key cannot use it.

        A key cannot use an upload that does not exist, or, without `any_owner`, one that it has no reference to.

        Args:
            owner: The key.
            digest: Digest of the upload.
            any_owner: Accept an upload that only other keys refer to; its use is not recorded.

        Raises:
            DamagedBlobError: If the upload's size in the store is not the recorded one, and a check of the upload finds
                damage; the upload is then set aside.
        """
        size = int(self._scripts.run("touch", owner, digest, int(any_owner)))
        stored_bytes = None if size < 0 else self._store.size(upload_name(digest))
        if stored_bytes not in (None, size):
            self._store.verify(upload_name(digest))
        return stored_bytes

    def forget_missing_upload(self, digest: str) -> bool:
        """Remove all keys' references to an upload that is missing in the store, unless it was sent again meanwhile.

        It is missing if it was deleted, or was set aside because it was damaged.

        A tombstone prevents new references from the check that the upload is missing to the removal of the old ones.

        Returns:
            Whether no key refers to the upload now.
        """
        while (reply := self._set_tombstone("missing_upload", digest)) == "":
            time.sleep(POLL_S)
        if reply == "unreferenced":
            return True
        token = reply
        try:
            is_missing = self._store.size(upload_name(digest)) is None
            if is_missing:
                self._scripts.run("unlink_all", digest, token)
        finally:
            self._clear_tombstone("upload", digest, token)
        return is_missing

    def forget_upload(self, owner: str, digest: str) -> bool | None:
        """Remove a key's reference to an upload, and delete the upload if nothing else refers to it.

        The upload is deleted at once, or after a running backup.

        Returns:
            True if the reference was removed, False if a live job of the key reads the upload, None if the key has no
            reference to it.
        """
        outcome = int(self._scripts.run("forget", owner, digest))
        if outcome == 1:
            self.delete_unreferenced_upload(digest)
        return None if outcome < 0 else outcome == 1

    def add_result_reference(self, job: str, key: str) -> bool:
        """Add a live job's reference to a result, which need not exist yet.

        Returns:
            True if the reference exists now, False if the job is not live.
        """
        token, deadline = None, 0.0
        while (reply := int(self._scripts.run("add_result_reference", job, key))) == 0:
            # At the deadline, the process that set this tombstone is taken to have stopped.
            present = self._redis.hget("masksmith:tombstones", f"result:{key}")
            if present != token:
                token, deadline = present, time.monotonic() + TOMBSTONE_TIMEOUT_S
            elif token is not None and time.monotonic() > deadline:
                self._clear_tombstone("result", key, str(token))
            time.sleep(POLL_S)
        return reply > 0

    def expire_upload(self, owner: str, digest: str, before: float) -> bool:
        """Remove a key's reference to an upload that the key has not used since `before`, unless a live job reads it.

        If a live job reads it, the current time is recorded as that of its last use. The upload is deleted if nothing
        else refers to it. Returns whether the reference was removed.
        """
        expired = bool(self._scripts.run("expire", owner, digest, f"{before:.6f}"))
        if expired and self.delete_unreferenced_upload(digest):
            log.info("deleted upload %s, which has expired", digest)
        return expired

    def delete_unreferenced_upload(self, digest: str) -> bool:
        """Delete an upload, and its copies in `damaged`, unless it is referenced; returns whether it was deleted.

        A running backup defers the deletion.
        """
        return self._delete_unreferenced("upload", digest, [upload_name(digest)])

    def delete_unreferenced_result(self, key: str) -> bool:
        """Delete a result unless it is referenced; a running backup defers this. Returns whether it was deleted."""
        # The report is deleted first: while it exists, the mask must exist.
        return self._delete_unreferenced("result", key, [result_report_name(key), result_name(key), weights_name(key)])

    def is_referenced(self, kind: str, key: str) -> bool:
        """Whether anything refers to an upload or a result (`kind`)."""
        keys = (f"masksmith:upload:{key}:owners", f"masksmith:upload:{key}:jobs")
        return bool(self._redis.exists(*(keys if kind == "upload" else (f"masksmith:result:{key}",))))

    def finish_deletions(self) -> None:
        """Finish deletions that failed, were interrupted by a crash, or deferred by a backup that has ended."""
        limit_expiry(self._redis, [BACKUP], BACKUP_LOCK_S)
        if not self._redis.exists(BACKUP):
            count_deletions(self._store, map(str, set(self._redis.smembers(DEFERRED))), self._delete_deferred)
        tombstones = list(self._redis.hkeys("masksmith:tombstones"))
        count_deletions(self._store, map(str, tombstones), self.delete_unreferenced)

    def delete_unreferenced(self, blob: str) -> bool:
        """Delete an upload or a result, `upload:DIGEST` or `result:KEY`, as the methods for each kind do."""
        kind, _, name = blob.partition(":")
        return (self.delete_unreferenced_upload if kind == "upload" else self.delete_unreferenced_result)(name)

    def _delete_deferred(self, blob: str) -> bool:
        is_deleted = self.delete_unreferenced(blob)
        self._redis.srem(DEFERRED, blob)
        return is_deleted

    def _delete_unreferenced(self, kind: str, name: str, blobs: Iterable[str]) -> bool:
        token = self._set_tombstone(kind, name)
        if not token:
            return False
        for blob in blobs:
            # If this process was paused, another one may have finished the deletion, and the blob may be in use again.
            if self._redis.hget("masksmith:tombstones", f"{kind}:{name}") == token:
                self._store.delete(blob)
                if kind == "upload":
                    self._store.delete_damaged(blob)
        self._clear_tombstone(kind, name, token)
        return True

    def _set_tombstone(self, script: str, name: str) -> str:
        """Run a script that sets a tombstone, and return its reply: the token; an empty text if it set none.

        `missing_upload` replies `unreferenced` if no key refers to the upload, so that it needs no tombstone.
        """
        return str(self._scripts.run(f"tombstone_{script}", name, secrets.token_hex(8), TOMBSTONE_TIMEOUT_S))

    def _clear_tombstone(self, kind: str, name: str, token: str) -> None:
        """Clear a tombstone, unless another process has set it again with a token of its own."""
        self._scripts.run("clear_tombstone", f"{kind}:{name}", token)
