"""Receives safetensors files, and stores them under their digests."""

from __future__ import annotations

import uuid

import anyio.to_thread
from fastapi import Request

from masksmith_service.auth.principal import Principal
from masksmith_service.errors import RequestError
from masksmith_service.resources import State
from masksmith_state.blobs.names import incoming_name, upload_name
from masksmith_state.blobs.references import LinkOutcome
from masksmith_state.blobs.store import BlobStore
from masksmith_wire.errors import Code

from .inspector import BLOCK_BYTES, Inspector, check_disk, content_length
from .quota import UploadQuota, too_many_bytes_error, too_many_record_bytes_error


async def receive(request: Request, state: State, principal: Principal, digest: str | None) -> tuple[Inspector, bool]:
    """Store an upload under its digest, and add a reference of the principal's key.

    The whole body is read and checked even if the upload exists already: only a client that can send its bytes gets
    access to it.

    Args:
        request: The upload.
        state: Resources of the application.
        principal: Who sends the upload.
        digest: Expected digest of the body, or None.

    Returns:
        The inspector with header and digest, and whether the upload is new to the key.

    Raises:
        RequestError: If the body is not a valid safetensors file, is too large, too slow or incomplete, or has another
            digest than expected; if a quota of the key would be exceeded; if the disk is too full; or if the upload
            was deleted meanwhile, because an earlier copy of it had expired.
        BrokerFullError: If Redis has no room for the record of the upload.
    """
    if not state.housekeeping.is_store_claimed:
        await anyio.to_thread.run_sync(state.housekeeping.ensure_store_claimed)
    length = content_length(request)  # 0 if it is not known
    if 0 < length <= BLOCK_BYTES:
        return await _receive_small(request, state, principal, digest)
    quota = UploadQuota(state, principal, digest)
    await anyio.to_thread.run_sync(quota.check, length)
    try:
        quota.count_total(length)
        inspector = await _store_stream(request, state, digest, quota)
        is_new = await anyio.to_thread.run_sync(_add_reference, state, principal, inspector)
    finally:
        quota.end()
    return inspector, is_new


async def _receive_small(
    request: Request, state: State, principal: Principal, digest: str | None
) -> tuple[Inspector, bool]:
    """Receive an upload of at most one block: check it first, then write it and add a reference on a thread."""
    inspector = Inspector(request, state.settings, digest, None)
    data = b"".join([block async for block in inspector.blocks()])

    def write_and_reference() -> bool:
        quota = UploadQuota(state, principal, inspector.digest)
        quota.check(len(data))
        # For an upload that only other keys have sent, the disk is checked nevertheless; see `_store_stream`.
        if not quota.key_has_upload:
            check_disk(state.store, state.settings, len(data))
        name = upload_name(inspector.digest)
        if not state.store.is_intact(name):
            state.store.put(name, data)
        return _add_reference(state, principal, inspector)

    return inspector, await anyio.to_thread.run_sync(write_and_reference, limiter=state.creation_threads)


async def _store_stream(request: Request, state: State, digest: str | None, quota: UploadQuota) -> Inspector:
    store = state.store
    if digest is not None and await anyio.to_thread.run_sync(store.is_intact, upload_name(digest)):
        # The body is checked, and not written again. If only other keys have sent it, disk space and quota are checked
        # nevertheless, so that this key cannot learn from an error, or from its absence, that the store has the upload.
        checks = (None, None) if quota.key_has_upload else (store, quota)
        inspector = Inspector(request, state.settings, digest, *checks)
        async for _ in inspector.blocks():
            pass
        return inspector
    inspector = Inspector(request, state.settings, digest, store, quota)
    name = upload_name(digest) if digest is not None else incoming_name(uuid.uuid4().hex)
    try:
        await store.put_stream(name, inspector.blocks(), inspector.hasher)
    except Exception:
        # The store may have replaced the error of the inspector by its own.
        if inspector.error is not None:
            raise inspector.error from None
        raise
    if digest is None:
        await anyio.to_thread.run_sync(_rename_to_digest, store, name, upload_name(inspector.digest))
    return inspector


def _add_reference(state: State, principal: Principal, inspector: Inspector) -> bool:
    """Add a reference of the key to a stored upload; return whether the key had none."""
    limits = (principal.quotas.stored_bytes, state.settings.key_broker_bytes if principal.key else None)
    outcome = state.references.link(principal.key, inspector.digest, inspector.bytes, *limits)
    if outcome is LinkOutcome.FULL:
        raise too_many_bytes_error(principal)
    if outcome is LinkOutcome.RECORDS_FULL:
        raise too_many_record_bytes_error(principal, state.settings.key_broker_bytes)
    if outcome is LinkOutcome.LOST:
        detail = "the same upload had expired, and was deleted while this one was stored; send it again"
        raise RequestError(Code.STORE_UNAVAILABLE, detail, retry_after_s=1)
    return outcome is LinkOutcome.NEW


def _rename_to_digest(store: BlobStore, name: str, final: str) -> None:
    """Rename a received upload to `final`, its name by digest; delete it if that fails."""
    try:
        store.rename(name, final)
    except BaseException:
        store.delete(name)
        raise
