"""Errors of requests, and the default HTTP status of each error code that can answer a request."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

import redis
from obstore.exceptions import BaseError as StoreError

from masksmith_state.blobs.names import digest_of_upload
from masksmith_state.errors import (
    BrokerFullError,
    BrokerUnsafeError,
    ChangedSourceError,
    DamagedBlobError,
    InstallationError,
    InvalidLocationError,
    NoMasksError,
    NoRootError,
    ReplacedBlobError,
    RootUnavailableError,
    TooManyShardsError,
    UnreadableRecordError,
)
from masksmith_state.jobs.shared_keys import DamagedBrokerError
from masksmith_wire.errors import Code, ProblemDocument

log = logging.getLogger(__name__)

_CODES = {
    400: "invalid_safetensors unknown_dtype invalid_digest digest_mismatch malformed_request body_incomplete",
    401: "unauthorized",
    403: "forbidden foreign_origin",
    404: "not_found job_not_found result_not_found key_not_found root_not_found reference_not_found",
    405: "method_not_allowed",
    408: "request_head_stalled body_stalled",
    409: "upload_not_found upload_damaged upload_in_use result_damaged idempotency_conflict job_not_finished "
    "ambiguous_job output_not_empty reference_changed",
    410: "record_unreadable",
    413: "header_too_large body_too_large document_too_deep too_many_tensors too_many_elements too_many_shards "
    "too_many_globs",
    421: "host_not_allowed",
    422: "invalid_document invalid_pattern invalid_layout invalid_budget invalid_previous invalid_calibration "
    "invalid_mask invalid_benchmark unknown_solver unknown_tensor unknown_kernel tensor_does_not_fit no_tensor_fits "
    "solver_refused kernel_refused invalid_reference invalid_output",
    429: "too_many_bytes rate_limited",
    431: "request_head_too_large",
    500: "internal",
    503: "too_many_jobs overloaded broker_full no_worker broker_unavailable store_unavailable root_unavailable "
    "issuer_unavailable",
    507: "disk_full",
}
STATUS = {Code(code): status for status, codes in _CODES.items() for code in codes.split()}
"""Default HTTP status of every code that can answer a request; the other codes occur only in job documents."""


class RequestError(Exception):
    """A request that cannot be served, with the members of its problem document.

    Args:
        code: Error code.
        detail: Description of the error.
        status: HTTP status, by default that of the code in `STATUS`.
        retry_after_s: Value of the header `Retry-After`, in seconds; None omits the header.
        extra: Additional members of the document.
    """

    def __init__(
        self, code: Code, detail: str, *, status: int | None = None, retry_after_s: int | None = None, **extra: Any
    ) -> None:
        super().__init__(detail)
        self.status = STATUS[code] if status is None else status
        self.code = code
        self.detail = detail
        self.retry_after_s = retry_after_s
        self.extra = extra

    def problem(self, instance: str | None = None) -> ProblemDocument:
        """Make the problem document."""
        title = self.code.value.replace("_", " ").capitalize()
        return ProblemDocument(
            title=title, status=self.status, code=self.code, detail=self.detail, instance=instance, **self.extra
        )


def translate(error: Exception) -> RequestError:
    """Convert one of `DOMAIN_ERRORS` to a RequestError, by the handler of its most specific class that has one."""
    handler = next((_HANDLERS[base] for base in type(error).__mro__ if base in _HANDLERS), None)
    if handler is None:
        raise TypeError(f"not a domain error: {error!r}")
    return handler(error)


def upload_damaged_error(digest: str) -> RequestError:
    """Return the error for an upload that is damaged in the store, whether it was set aside or stays there."""
    detail = f"upload {digest} is damaged in the store; PUT it again"
    return RequestError(Code.UPLOAD_DAMAGED, detail, digest=digest)


def _no_masks(error: NoMasksError) -> RequestError:
    return RequestError(Code.RESULT_NOT_FOUND, f"{error}; its results: /v1/jobs/{error.job}/{error.kind}")


def _too_many_shards(error: TooManyShardsError) -> RequestError:
    detail = f"the job would have more than max_shards = {error.limit} shards; name fewer tensors"
    return RequestError(Code.TOO_MANY_SHARDS, detail, limit=error.limit)


def _broker_full(error: BrokerFullError) -> RequestError:
    return RequestError(Code.BROKER_FULL, f"{error}; delete jobs, or try again", retry_after_s=30)


def _broker_unsafe(error: BrokerUnsafeError) -> RequestError:
    return RequestError(Code.BROKER_UNAVAILABLE, f"the broker may lose or refuse work: {error}", retry_after_s=5)


def _broker_unavailable(error: redis.RedisError) -> RequestError:
    log.warning("broker unavailable: %s", error)
    return RequestError(
        Code.BROKER_UNAVAILABLE, "the broker (Redis) does not answer; try again shortly", retry_after_s=2
    )


def _damaged_broker(error: DamagedBrokerError) -> RequestError:
    # The answer does not name the damaged key of Redis, because that name may contain the id of another user's API key.
    log.error("%s", error)
    detail = (
        "a key of the broker (Redis) that many jobs share is damaged, and the service's log names it: the operator "
        "must delete it, or restore it from a backup"
    )
    return RequestError(Code.BROKER_UNAVAILABLE, detail, retry_after_s=30)


def _refusing_broker(error: redis.ResponseError) -> RequestError:
    log.error("the broker refused a command: %s", error)
    detail = "the broker (Redis) refused a command, or a record is damaged; the service's log has its answer"
    return RequestError(Code.BROKER_UNAVAILABLE, detail, retry_after_s=5)


def _damaged_blob(error: DamagedBlobError) -> RequestError:
    digest = digest_of_upload(error.blob)
    if digest is not None:
        return upload_damaged_error(digest)
    problem = "was damaged in the store and was set aside" if error.is_set_aside else "cannot be read from the store"
    if isinstance(error, ReplacedBlobError):
        problem = "was replaced by that of another job, which has other values"
    detail = f"a result of this job {problem}; submit the job again to compute it anew"
    return RequestError(Code.RESULT_DAMAGED, detail)


def _deleted_blob(error: FileNotFoundError) -> RequestError:
    # The store raises FileNotFoundError for a blob that was deleted after its record was read.
    log.warning("deleted while it was read: %s", str(error).partition("\n")[0])
    return RequestError(Code.RESULT_NOT_FOUND, "data that the request reads was deleted meanwhile")


def _unreadable_record(error: UnreadableRecordError) -> RequestError:
    log.error("%s", ascii(str(error)))
    detail = f"the record of job {error.job} cannot be read; delete the job and submit it again"
    return RequestError(Code.RECORD_UNREADABLE, detail)


def _other_installation(error: InstallationError) -> RequestError:
    log.error("the installation cannot be used: %s", error)
    return RequestError(Code.STORE_UNAVAILABLE, "the store is not this installation's; see the service's log")


def _invalid_location(error: InvalidLocationError) -> RequestError:
    return RequestError(Code.INVALID_REFERENCE, str(error), location=error.location)


def _no_root(error: NoRootError) -> RequestError:
    detail = f"{error}; name a location inside a root of the service, or ask its operator to add a root"
    return RequestError(Code.ROOT_NOT_FOUND, detail, location=error.location)


def _changed_source(error: ChangedSourceError) -> RequestError:
    return RequestError(Code.REFERENCE_CHANGED, str(error), location=error.location)


def _root_unavailable(error: RootUnavailableError) -> RequestError:
    log.error("root unavailable: %s", error)
    return RequestError(Code.ROOT_UNAVAILABLE, str(error), retry_after_s=5, location=error.location)


def _store_unavailable(error: StoreError) -> RequestError:
    log.error("store unavailable: %s", error)
    detail = "the blob store does not answer or is full; nothing was written"
    return RequestError(Code.STORE_UNAVAILABLE, detail, retry_after_s=5)


_HANDLERS: Mapping[type[Exception], Callable[[Any], RequestError]] = {
    BrokerFullError: _broker_full,
    BrokerUnsafeError: _broker_unsafe,
    ChangedSourceError: _changed_source,
    DamagedBlobError: _damaged_blob,
    DamagedBrokerError: _damaged_broker,
    FileNotFoundError: _deleted_blob,
    InstallationError: _other_installation,
    InvalidLocationError: _invalid_location,
    NoMasksError: _no_masks,
    NoRootError: _no_root,
    RootUnavailableError: _root_unavailable,
    TooManyShardsError: _too_many_shards,
    UnreadableRecordError: _unreadable_record,
    redis.RedisError: _broker_unavailable,
    redis.ResponseError: _refusing_broker,
    StoreError: _store_unavailable,
}
DOMAIN_ERRORS: tuple[type[Exception], ...] = tuple(_HANDLERS)
"""Errors that routes need not handle, because `translate` converts them."""
