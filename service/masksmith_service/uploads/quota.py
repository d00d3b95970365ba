"""Checks a key's quota of stored bytes while it sends an upload."""

from __future__ import annotations

from masksmith_service.auth.principal import Principal
from masksmith_service.errors import RequestError
from masksmith_service.resources import State
from masksmith_state.errors import DamagedBlobError
from masksmith_wire.errors import Code

UPLOAD_RECORD_BYTES = 1024
"""Bytes of the broker for the record of an upload."""


class Quota:
    """Counts an upload that is being received toward its key's quota of stored bytes.

    Args:
        state: Resources of the application.
        principal: Who sends the upload.
        digest: Expected digest of the upload, or None.
    """

    def __init__(self, state: State, principal: Principal, digest: str | None) -> None:
        self._state, self._principal, self._digest = state, principal, digest
        self._incoming_bytes = state.capacities.incoming_bytes
        self._counted = 0
        self._free_bytes: float = float("inf")

    def check(self, length: int) -> None:
        """Check, before an upload is received, that it does not exceed the quota, and that the broker has room for it.

        Raises:
            RequestError: 429, for the quota.
            BrokerFullError: If the broker has no room for another record.
        """
        state, key, limit = self._state, self._principal.key, self._principal.quotas.stored_bytes
        if (
            self._digest is not None
            and uploaded_bytes(state, self._principal, self._digest, any_owner=False) is not None
        ):
            return
        state.housekeeping.broker.require_room(UPLOAD_RECORD_BYTES)
        if limit is not None:
            self._free_bytes = limit - state.references.bytes_of(key)
        if self._incoming_bytes[key] + length > self._free_bytes:
            raise too_many_bytes(self._principal)

    def grow(self, size: int) -> None:
        """Count the bytes that have arrived, or that the client has announced.

        Raises:
            RequestError: If all uploads of the key that are being received exceed the quota together.
        """
        if size > self._counted:
            self._incoming_bytes[self._principal.key] += size - self._counted
            self._counted = size
        if self._incoming_bytes[self._principal.key] > self._free_bytes:
            raise too_many_bytes(self._principal)

    def end(self) -> None:
        """Stop counting the upload: it is stored, or was rejected."""
        self._incoming_bytes[self._principal.key] -= self._counted
        self._counted = 0


def uploaded_bytes(state: State, principal: Principal, digest: str, *, any_owner: bool) -> int | None:
    """Record the use of an upload, and return its size; None if it does not exist or is damaged."""
    try:
        return state.references.touch(principal.key, digest, any_owner=any_owner)
    except (DamagedBlobError, FileNotFoundError):
        return None


def too_many_bytes(principal: Principal) -> RequestError:
    """Error of a key whose quota of stored bytes is exceeded."""
    limit = principal.quotas.stored_bytes
    detail = f"key {principal.name!r} may keep {limit} bytes (stored_bytes); delete jobs, or wait until uploads expire"
    return RequestError(Code.TOO_MANY_BYTES, detail, retry_after_s=3600, limit=limit)
