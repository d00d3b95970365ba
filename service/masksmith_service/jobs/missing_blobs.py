"""The error of a request that reads a result or an upload of a job which is no longer in the store."""

from __future__ import annotations

from collections.abc import Iterable

from masksmith_service.errors import RequestError, upload_damaged
from masksmith_state.blobs.names import digest_of_upload
from masksmith_state.blobs.store import BlobStore
from masksmith_wire.errors import Code


def check_exist(store: BlobStore, names: Iterable[str]) -> None:
    """Check that blobs of a job exist.

    Raises:
        RequestError: As `missing_blob_error` returns it, for the first one that does not.
    """
    for name in names:
        if store.size(name) is None:
            raise missing_blob_error(store, name)


def missing_blob_error(store: BlobStore, name: str) -> RequestError:
    """Return the error of a missing blob of a job: the same as when it was found to be damaged and was set aside.

    A job's results are kept as long as the job: one that is missing was damaged, or was deleted by hand. An upload may
    have expired before the job.
    """
    digest = digest_of_upload(name)
    if digest is None:
        detail = "a result of this job is missing: it was damaged in the store and set aside, or deleted there"
        return RequestError(Code.RESULT_DAMAGED, f"{detail}; submit the job again to compute it anew")
    if store.is_set_aside(name):
        return upload_damaged(digest)
    return RequestError(Code.RESULT_NOT_FOUND, "weights of this job have expired; submit it again")
