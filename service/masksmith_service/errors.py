"""What the service refuses, and the HTTP status of each reason; nothing below the service knows of either."""

from __future__ import annotations

import logging
from typing import Any

import redis
from obstore.exceptions import BaseError as StoreError

from masksmith_state.errors import NoMasksError, TooManyShardsError
from masksmith_wire.errors import Code, ProblemDocument

log = logging.getLogger(__name__)

_CODES = {
    400: "invalid_safetensors unknown_dtype invalid_digest digest_mismatch malformed_request body_incomplete",
    401: "unauthorized",
    403: "forbidden foreign_origin",
    404: "not_found job_not_found result_not_found key_not_found",
    405: "method_not_allowed",
    408: "request_head_stalled body_stalled",
    409: "upload_not_found upload_damaged idempotency_conflict job_not_finished",
    413: "header_too_large body_too_large document_too_deep too_many_tensors too_many_elements too_many_shards",
    421: "host_not_allowed",
    422: "invalid_document invalid_pattern invalid_budget invalid_previous invalid_calibration invalid_mask "
    "invalid_benchmark unknown_solver unknown_tensor unknown_kernel tensor_does_not_fit no_tensor_fits solver_refused "
    "kernel_refused",
    429: "too_many_bytes rate_limited",
    431: "request_head_too_large",
    500: "internal",
    503: "too_many_jobs no_worker broker_unavailable store_unavailable",
    507: "disk_full",
}
STATUS = {Code(code): status for status, codes in _CODES.items() for code in codes.split()}
"""The status of every code that answers a request; the others only ever stand in a job's document."""

DOMAIN_ERRORS = (NoMasksError, TooManyShardsError, redis.RedisError, StoreError)
"""What routes may let pass: `translate` knows them."""


class RequestError(Exception):
    """A request that cannot be served; carries everything its problem document says.

    Args:
        status: Where it is not the one that `STATUS` gives the code.
        extra: Further members of the document.
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
        """Give the problem document."""
        title = self.code.value.replace("_", " ").capitalize()
        return ProblemDocument(
            title=title, status=self.status, code=self.code, detail=self.detail, instance=instance, **self.extra
        )


def translate(error: Exception) -> RequestError:
    """Say what one of `DOMAIN_ERRORS` means to the client."""
    match error:
        case NoMasksError():
            return RequestError(Code.RESULT_NOT_FOUND, f"{error}; its results: /v1/jobs/{error.job}/{error.kind}")
        case TooManyShardsError():
            detail = f"the job would have more than max_shards = {error.limit} shards; name fewer tensors"
            return RequestError(Code.TOO_MANY_SHARDS, detail, limit=error.limit)
        case redis.RedisError():
            log.warning("broker unavailable: %s", error)
            detail = "the broker (Redis) does not answer; try again shortly"
            return RequestError(Code.BROKER_UNAVAILABLE, detail, retry_after_s=2)
        case StoreError():
            log.error("store unavailable: %s", error)
            detail = "the blob store does not answer or is full; nothing was written"
            return RequestError(Code.STORE_UNAVAILABLE, detail, retry_after_s=5)
    raise TypeError(f"no domain error: {error!r}")
