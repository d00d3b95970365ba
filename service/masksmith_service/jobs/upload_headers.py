"""The headers of the uploads that a job names, read before anything is planned."""

from __future__ import annotations

from collections.abc import Iterator

from masksmith_service.auth.principal import Caller
from masksmith_service.errors import RequestError
from masksmith_service.resources import State
from masksmith_state.blobs.store import upload_name
from masksmith_wire.digests import is_digest
from masksmith_wire.documents import MasksOptions, MasksRequest
from masksmith_wire.errors import Code
from masksmith_wire.headers import LARGEST_HEADER_BYTES, PREFIX_BYTES, Header, HeaderError, header_length, parse_header


def read_headers(state: State, caller: Caller, request: MasksOptions) -> dict[str, Header]:
    """Read the headers of all uploads that a request names and its caller may use, by digest.

    Raises:
        RequestError: If an upload is missing, another key's, or damaged.
    """
    return {digest: _read(state, caller, digest) for digest in dict.fromkeys(_uploads_of(request))}


def _uploads_of(request: MasksOptions) -> Iterator[str]:
    if isinstance(request, MasksRequest):
        for tensor in request.tensors:
            yield from (part.digest for part in (tensor, tensor.statistic, tensor.gram) if part is not None)
    if request.calibration is not None:
        yield request.calibration
    if request.previous is not None and is_digest(request.previous):
        yield request.previous


def _read(state: State, caller: Caller, digest: str) -> Header:
    if state.references.touch(caller.key, digest, any_owner=caller.is_admin) is None:
        raise upload_missing(digest)
    name = upload_name(digest)
    try:
        length = header_length(state.store.get_range(name, 0, PREFIX_BYTES), LARGEST_HEADER_BYTES)
        return parse_header(state.store.get_range(name, PREFIX_BYTES, PREFIX_BYTES + length))
    except FileNotFoundError:
        raise upload_missing(digest) from None
    except HeaderError as error:
        # It was sound when it came.
        state.references.delete_damaged_upload(digest)
        detail = f"upload {digest} is damaged in the store ({error}) and was deleted; PUT it again"
        raise RequestError(Code.UPLOAD_DAMAGED, detail, digest=digest) from None


def upload_missing(digest: str) -> RequestError:
    """Make the error of an upload that is not here, or not the key's."""
    detail = f"upload {digest} is not here; PUT /v1/tensors/{digest} first"
    return RequestError(Code.UPLOAD_NOT_FOUND, detail, digest=digest)
