"""The error of a request that reads a job's result or upload, if the store no longer has that result or upload."""

from __future__ import annotations

from collections.abc import Iterable

from masksmith_service.errors import RequestError, upload_damaged_error
from masksmith_state.blobs.names import digest_of_upload
from masksmith_state.blobs.store import BlobStore
from masksmith_wire.errors import Code


def check_exist(store: BlobStore, names: Iterable[str]) -> None:
    """Check that blobs of a job exist.

    Raises:
        RequestError: If a blob does not exist; see `missing_blob_error`.
    """
    for name in names:
        if store.size(name) is None:
            raise missing_blob_error(store, name)


def missing_blob_error(store: BlobStore, name: str) -> RequestError:
    """Return the error for a missing blob of a job: the same error as for a damaged one, unless an upload has expired.

    Results are kept as long as their job, so a missing result was damaged and set aside, or was deleted by hand. An
    upload may expire before the job.
    """
    digest = digest_of_upload(name)
    if digest is None:
        detail = "a result of this job is missing: it was damaged in the store and set aside, or deleted there"
        return RequestError(Code.RESULT_DAMAGED, f"{detail}; submit the job again to compute it anew")
    if store.is_set_aside(name):
        return upload_damaged_error(digest)
    return RequestError(Code.RESULT_NOT_FOUND, "weights of this job have expired; submit it again")
