"""Reads the headers of the uploads that a request names."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

from masksmith_service.auth.principal import Principal
from masksmith_service.bounds.table import cost
from masksmith_service.errors import RequestError, upload_damaged_error
from masksmith_service.resources import State
from masksmith_service.uploads.header_checks import header_error
from masksmith_service.uploads.inspector import SMALL_HEADER_BYTES
from masksmith_state.blobs.names import upload_name
from masksmith_state.errors import DamagedBlobError
from masksmith_wire.digests import is_digest
from masksmith_wire.documents import MasksOptions, MasksRequest
from masksmith_wire.errors import Code
from masksmith_wire.headers import Header, HeaderError, parse_header, read_header_text

from .options import FileOptions


def read_headers(
    state: State, principal: Principal, request: MasksOptions, reserve_memory: Callable[[int], None]
) -> dict[str, Header]:
    """Read the headers of all uploads that a request names, by digest.

    Args:
        state: Resources of the application.
        principal: Who sent the request.
        request: The request.
        reserve_memory: Reserves a number of bytes of memory for the request.

    Raises:
        RequestError: If an upload does not exist, belongs to another key, or is damaged; or if all headers together
            are too large.
    """
    total, limit = 0, state.settings.max_header_bytes

    def reserve(header_bytes: int) -> None:
        nonlocal total
        total += header_bytes
        if total > limit:
            detail = f"the headers of the uploads are larger than max_header_bytes = {limit}; name fewer in a job"
            raise RequestError(Code.HEADER_TOO_LARGE, detail, limit=limit)
        if header_bytes > SMALL_HEADER_BYTES:
            reserve_memory(cost("header") * header_bytes)

    digests = dict.fromkeys(_digests_in(request))
    return {digest: _parse(state, digest, _read(state, principal, digest, reserve)) for digest in digests}


def _digests_in(request: MasksOptions) -> Iterator[str]:
    if isinstance(request, MasksRequest):
        for tensor in request.tensors:
            inputs = (tensor, tensor.statistic, tensor.gram)
            yield from (
                file_input.digest for file_input in inputs if file_input is not None and file_input.digest is not None
            )
    if isinstance(request, FileOptions):
        yield from request.also
    if request.calibration is not None and is_digest(request.calibration):
        yield request.calibration
    if request.previous is not None and is_digest(request.previous):
        yield request.previous


def _read(state: State, principal: Principal, digest: str, reserve: Callable[[int], None]) -> bytes:
    name = upload_name(digest)
    try:
        size = state.references.touch(principal.key, digest, any_owner=principal.is_admin)
        if size is None:
            raise upload_missing_error(digest)
        return read_header_text(partial(state.store.get_range, name), size, reserve=reserve)
    except FileNotFoundError:
        raise upload_missing_error(digest) from None
    except DamagedBlobError:
        raise _forget(state, digest) from None
    except HeaderError as error:
        raise _header_error(state, digest, error) from None


def _parse(state: State, digest: str, text: bytes) -> Header:
    try:
        return parse_header(text)
    except HeaderError as error:
        raise _header_error(state, digest, error) from None


def _header_error(state: State, digest: str, error: HeaderError) -> RequestError:
    """Return the error for a header that cannot be parsed: an intact upload stays, a damaged one is set aside."""
    try:
        state.store.verify(upload_name(digest))
    except FileNotFoundError:
        return upload_missing_error(digest)
    except DamagedBlobError:
        return _forget(state, digest)
    return header_error(type(error)(f"upload {digest}: {error}"))


def _forget(state: State, digest: str) -> RequestError:
    """Remove the references to an upload that the store has set aside; returns the error to raise."""
    state.references.forget_missing_upload(digest)
    return upload_damaged_error(digest)


def upload_missing_error(digest: str) -> RequestError:
    """Return the error for an upload that does not exist, or belongs to another key."""
    detail = f"upload {digest} does not exist; PUT /v1/tensors/{digest} first"
    return RequestError(Code.UPLOAD_NOT_FOUND, detail, digest=digest)
