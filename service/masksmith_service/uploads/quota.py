"""Checks a key's quota of stored bytes during an upload; finds uploads; makes the errors for full quotas."""

from __future__ import annotations

from masksmith_service.auth.principal import Principal
from masksmith_service.errors import RequestError
from masksmith_service.resources import State
from masksmith_state.errors import DamagedBlobError
from masksmith_wire.errors import Code

UPLOAD_RECORD_BYTES = 1024
"""Estimate of the memory that the record of an upload takes in Redis, in bytes."""
RETRY_AFTER_S = 3600
"""Seconds after which a client with a full quota may try again: by then, jobs or uploads may have expired."""


class UploadQuota:
    """Counts an upload that is being received toward its key's quota of stored bytes.

    Args:
        state: Resources of the application.
        principal: Who sends the upload.
        digest: Expected digest of the upload, or None.

    Attributes:
        key_has_upload: Whether `check` has found that the key has the upload already.
    """

    def __init__(self, state: State, principal: Principal, digest: str | None) -> None:
        self.key_has_upload = False
        self._state, self._principal, self._digest = state, principal, digest
        self._incoming_bytes = state.capacities.incoming_bytes
        self._counted_bytes = 0
        self._free_bytes: float = float("inf")

    def check(self, length: int) -> None:
        """Check, before an upload is stored, that it does not exceed the quota, and that Redis has room for a record.

        If this key has the upload already, nothing is checked, and the use of the upload is recorded.

        Args:
            length: Size of the upload in bytes; 0 if the client has not announced it.

        Raises:
            RequestError: 429, if the quota would be exceeded.
            BrokerFullError: If Redis has no room for another record.
        """
        state, key, limit = self._state, self._principal.key, self._principal.quotas.stored_bytes
        if self._digest is not None and touch_upload(state, self._principal, self._digest, any_owner=False) is not None:
            self.key_has_upload = True
            return
        state.housekeeping.broker.require_room(UPLOAD_RECORD_BYTES)
        if limit is not None:
            self._free_bytes = limit - state.references.bytes_of(key)
        if self._incoming_bytes[key] + length > self._free_bytes:
            raise too_many_bytes_error(self._principal)

    def count_total(self, total_bytes: int) -> None:
        """Count the upload's bytes.

        Args:
            total_bytes: All bytes that have arrived so far, or all that the client has announced.

        Raises:
            RequestError: 429, if all uploads that are being received from the key are together larger than the bytes
                that were free at `check`.
        """
        if total_bytes > self._counted_bytes:
            self._incoming_bytes[self._principal.key] += total_bytes - self._counted_bytes
            self._counted_bytes = total_bytes
        if self._incoming_bytes[self._principal.key] > self._free_bytes:
            raise too_many_bytes_error(self._principal)

    def end(self) -> None:
        """Stop counting the upload: it is stored, or will not be."""
        self._incoming_bytes[self._principal.key] -= self._counted_bytes
        self._counted_bytes = 0


def touch_upload(state: State, principal: Principal, digest: str, *, any_owner: bool) -> int | None:
    """Return the size of an upload; None if the key cannot use it, or it is missing or damaged.

    If the key has a reference to the upload, it is recorded that the key uses it now.

    Args:
        state: Resources of the application.
        principal: Who sent the request.
        digest: Digest of the upload.
        any_owner: Accept an upload to which only other keys have references.
    """
    try:
        return state.references.touch(principal.key, digest, any_owner=any_owner)
    except (DamagedBlobError, FileNotFoundError):
        return None


def too_many_record_bytes_error(principal: Principal, limit: int) -> RequestError:
    """Return the error for a key whose records would take more than `limit` bytes of the broker."""
    detail = (
        f"the records of key {principal.name!r} would take more than {limit} bytes of the broker (key_broker_bytes); "
        "delete jobs and uploads"
    )
    return RequestError(Code.TOO_MANY_BYTES, detail, retry_after_s=RETRY_AFTER_S, limit=limit)


def too_many_bytes_error(principal: Principal) -> RequestError:
    """Return the error for a key whose quota of stored bytes would be exceeded."""
    limit = principal.quotas.stored_bytes
    detail = f"key {principal.name!r} may keep {limit} bytes (stored_bytes); delete jobs, or wait until uploads expire"
    return RequestError(Code.TOO_MANY_BYTES, detail, retry_after_s=RETRY_AFTER_S, limit=limit)
