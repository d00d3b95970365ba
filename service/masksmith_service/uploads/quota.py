"""A key's quota of stored bytes while it sends an upload."""

from __future__ import annotations

from masksmith_service.auth.principal import Principal
from masksmith_service.errors import RequestError
from masksmith_service.resources import State
from masksmith_state.errors import DamagedBlobError
from masksmith_wire.errors import Code

UPLOAD_RECORD_BYTES = 1024
"""Bytes of the broker for the record of an upload."""


class Quota:
    """A key's quota of stored bytes while it sends an upload: begun uploads count, too.

    Args:
        state: Resources of the application.
        principal: The sender.
        digest: Expected digest of the upload, or None.
    """

    def __init__(self, state: State, principal: Principal, digest: str | None) -> None:
        self._state, self._principal, self._digest = state, principal, digest
        self._begun = state.capacities.begun
        self._counted = 0
        self._room: float = float("inf")

    def check(self, length: int) -> None:
        """Reject an upload that would exceed the quota before it is received, or for which the broker has no room.

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
            self._room = limit - state.references.bytes_of(key)
        if self._begun[key] + length > self._room:
            raise too_many_bytes(self._principal)

    def grow(self, size: int) -> None:
        """Count what has arrived, or is to arrive.

        Raises:
            RequestError: If all begun uploads of the key are too large together.
        """
        if size > self._counted:
            self._begun[self._principal.key] += size - self._counted
            self._counted = size
        if self._begun[self._principal.key] > self._room:
            raise too_many_bytes(self._principal)

    def end(self) -> None:
        """Count the upload no longer: it is stored, or was refused."""
        self._begun[self._principal.key] -= self._counted
        self._counted = 0


def uploaded_bytes(state: State, principal: Principal, digest: str, *, any_owner: bool) -> int | None:
    """Record the use of an upload, and return its size; None if it must be sent (again)."""
    try:
        return state.references.touch(principal.key, digest, any_owner=any_owner)
    except (DamagedBlobError, FileNotFoundError):
        return None


def too_many_bytes(principal: Principal) -> RequestError:
    """Error of a key whose quota of stored bytes is exceeded."""
    limit = principal.quotas.stored_bytes
    detail = f"key {principal.name!r} may keep {limit} bytes (stored_bytes); delete jobs, or wait until uploads expire"
    return RequestError(Code.TOO_MANY_BYTES, detail, retry_after_s=3600, limit=limit)
