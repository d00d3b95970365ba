"""Blob references: who needs which blob, so that nothing needed is deleted and nothing else is kept for ever.

An upload D is referred to by the keys that sent it and by the live jobs that read it; a result R by the jobs that list
it:

- `masksmith:upload:D` (hash: `size`), `:owners` and `:jobs` (sets); `masksmith:uploads` orders `KEY:D` by last use;
- `masksmith:result:R` and `masksmith:job:J:results` (sets, either way); `masksmith:unheld` has those without a job;
- `masksmith:owner:K:bytes` counts what a key keeps: its uploads, and the results of its jobs;
- `masksmith:tombstones` (hash: blob -> token) lists what is being deleted. Nothing can refer to such a blob.

A blob is deleted in three steps: set its tombstone if nothing refers to it (one atomic script), delete it, clear the
tombstone. A reader of a result refers to it before checking that it exists. A writer of an upload refers to it
afterwards and then checks that it still exists, for it may have been deleted in between: then it has to be sent again.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable
from enum import StrEnum

import redis

from masksmith_state.scripts import Scripts

from .store import BlobStore, result_name, result_report_name, upload_name, weights_name

TOMBSTONE_PATIENCE_S = 60.0
POLL_S = 0.05


class Linked(StrEnum):
    """Outcome of a key's wish to refer to an upload."""

    NEW = "new"
    KNOWN = "known"
    FULL = "full"
    LOST = "lost"


class BlobReferences:
    """Adds and removes references to blobs, and deletes blobs without any.

    Args:
        client: The Redis server of the job records, decoding its answers.
        store: The blobs; no other installation may use it.
    """

    def __init__(self, client: redis.Redis, store: BlobStore) -> None:
        self._redis, self._store, self._scripts = client, store, Scripts(client, __package__)

    def bytes_of(self, owner: str) -> int:
        """Bytes that a key keeps."""
        return int(self._redis.get(f"masksmith:owner:{owner}:bytes") or 0)

    def link(self, owner: str, digest: str, size: int, most: int | None) -> Linked:
        """Let a key refer to an upload whose bytes it has sent, and which has been written.

        Args:
            owner: The key.
            digest: The upload.
            size: Its size.
            most: Bytes that the key may keep.

        Returns:
            `NEW` or `KNOWN` to the key, `FULL` if that would be too much, `LOST` if it was being deleted meanwhile.
        """
        until = time.monotonic() + TOMBSTONE_PATIENCE_S
        while (outcome := self._scripts.run("link", owner, digest, size, -1 if most is None else most)) == "tombstone":
            if time.monotonic() > until:
                return Linked.LOST
            time.sleep(POLL_S)
        if outcome == Linked.FULL:
            self.free_upload(digest)
        elif self._store.size(upload_name(digest)) is None:
            self._scripts.run("unlink_all", digest)
            return Linked.LOST
        return Linked(outcome)

    def touch(self, owner: str, digest: str, *, any_owner: bool) -> int | None:
        """Return the size of an upload that a key refers to, or None, and let it expire later.

        Args:
            owner: The key.
            digest: The upload.
            any_owner: Whether an upload of another key is accepted too.
        """
        size = int(self._scripts.run("touch", owner, digest, int(any_owner)))
        return None if size < 0 or self._store.size(upload_name(digest)) is None else size

    def forget_upload(self, digest: str) -> None:
        """Delete a damaged upload, also if jobs refer to it, so that it can be sent again."""
        self._scripts.run("unlink_all", digest)
        self._store.delete(upload_name(digest))

    def hold_result(self, job: str, key: str) -> bool:
        """Let a live job refer to a result, which need not exist yet; False if the job is over."""
        until = time.monotonic() + TOMBSTONE_PATIENCE_S
        while (answer := int(self._scripts.run("hold_result", job, key))) == 0:
            if time.monotonic() > until:
                self._clear_tombstone("result", key)
            time.sleep(POLL_S)
        return answer > 0

    def expire_upload(self, owner: str, digest: str, before: float) -> bool:
        """Remove a key's reference to an upload not used since `before`, unless a live job reads it."""
        expired = bool(self._scripts.run("expire", owner, digest, f"{before:.6f}"))
        if expired:
            self.free_upload(digest)
        return expired

    def free_upload(self, digest: str) -> bool:
        """Delete an upload if nothing refers to it."""
        return self._free("upload", digest, [upload_name(digest)])

    def free_result(self, key: str) -> bool:
        """Delete a result if no job refers to it."""
        # The report goes first: its presence proves the mask's.
        return self._free("result", key, [result_report_name(key), result_name(key), weights_name(key)])

    def finish_deletions(self) -> None:
        """Finish the deletions that a killed process had begun."""
        for blob, token in dict(self._redis.hgetall("masksmith:tombstones")).items():
            kind, _, name = str(blob).partition(":")
            if float(str(token).partition(":")[0]) < time.time() - TOMBSTONE_PATIENCE_S:
                (self.free_upload if kind == "upload" else self.free_result)(name)

    def _free(self, kind: str, name: str, blobs: Iterable[str]) -> bool:
        token = f"{time.time():.3f}:{secrets.token_hex(8)}"
        if not self._scripts.run(f"tombstone_{kind}", name, token):
            return False
        for blob in blobs:
            # After a long pause here another process may have finished the deletion, and the blob be in use again.
            if self._redis.hget("masksmith:tombstones", f"{kind}:{name}") == token:
                self._store.delete(blob)
        self._clear_tombstone(kind, name)
        return True

    def _clear_tombstone(self, kind: str, name: str) -> None:
        self._redis.hdel("masksmith:tombstones", f"{kind}:{name}")
