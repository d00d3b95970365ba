"""Error documents: RFC 9457 problem documents with a stable `code`, and the errors of single parts of a job."""

from __future__ import annotations

from enum import StrEnum

from pydantic import BaseModel, ConfigDict

PROBLEM_MEDIA_TYPE = "application/problem+json"


class Code(StrEnum):
    """Stable error codes, which scripts may branch on."""

    INVALID_DOCUMENT = "invalid_document"
    INVALID_PATTERN = "invalid_pattern"
    INVALID_LAYOUT = "invalid_layout"
    INVALID_BUDGET = "invalid_budget"
    INVALID_PREVIOUS = "invalid_previous"  # the previous masks that a job names
    INVALID_SAFETENSORS = "invalid_safetensors"
    INVALID_SCORES = "invalid_scores"
    INVALID_CALIBRATION = "invalid_calibration"
    INVALID_DIGEST = "invalid_digest"
    INVALID_REFERENCE = "invalid_reference"
    INVALID_OUTPUT = "invalid_output"
    OUTPUT_NOT_EMPTY = "output_not_empty"
    ROOT_NOT_FOUND = "root_not_found"
    ROOT_UNAVAILABLE = "root_unavailable"
    REFERENCE_NOT_FOUND = "reference_not_found"
    REFERENCE_CHANGED = "reference_changed"
    UNKNOWN_DTYPE = "unknown_dtype"
    UNKNOWN_SOLVER = "unknown_solver"
    UNKNOWN_TENSOR = "unknown_tensor"
    TENSOR_DOES_NOT_FIT = "tensor_does_not_fit"  # It cannot be masked with the pattern, or updated.
    NO_TENSOR_FITS = "no_tensor_fits"  # No tensor of the job can be masked.
    SOLVER_REFUSED = "solver_refused"  # The solver does not support the pattern or an option.
    EXTRA_MISSING = "extra_missing"
    INSUFFICIENT_MEMORY = "insufficient_memory"
    UNKNOWN_KERNEL = "unknown_kernel"
    KERNEL_REFUSED = "kernel_refused"  # The kernel does not support the case, or cannot run on the device.
    INVALID_MASK = "invalid_mask"
    INVALID_BENCHMARK = "invalid_benchmark"
    DIGEST_MISMATCH = "digest_mismatch"
    IDEMPOTENCY_CONFLICT = "idempotency_conflict"
    JOB_NOT_FOUND = "job_not_found"
    JOB_NOT_FINISHED = "job_not_finished"
    AMBIGUOUS_JOB = "ambiguous_job"
    RECORD_UNREADABLE = "record_unreadable"
    RESULT_NOT_FOUND = "result_not_found"
    RESULT_DAMAGED = "result_damaged"
    UPLOAD_NOT_FOUND = "upload_not_found"
    UPLOAD_DAMAGED = "upload_damaged"
    UPLOAD_IN_USE = "upload_in_use"
    UNAUTHORIZED = "unauthorized"
    ISSUER_UNAVAILABLE = "issuer_unavailable"
    FORBIDDEN = "forbidden"
    FOREIGN_ORIGIN = "foreign_origin"
    HOST_NOT_ALLOWED = "host_not_allowed"
    KEY_NOT_FOUND = "key_not_found"
    RATE_LIMITED = "rate_limited"
    NOT_FOUND = "not_found"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    MALFORMED_REQUEST = "malformed_request"
    REQUEST_HEAD_TOO_LARGE = "request_head_too_large"
    REQUEST_HEAD_STALLED = "request_head_stalled"
    BODY_TOO_LARGE = "body_too_large"
    BODY_INCOMPLETE = "body_incomplete"
    BODY_STALLED = "body_stalled"
    DOCUMENT_TOO_DEEP = "document_too_deep"
    HEADER_TOO_LARGE = "header_too_large"  # the header of a safetensors file
    TOO_MANY_TENSORS = "too_many_tensors"
    TOO_MANY_ELEMENTS = "too_many_elements"
    TOO_MANY_SHARDS = "too_many_shards"
    TOO_MANY_BYTES = "too_many_bytes"
    TOO_MANY_JOBS = "too_many_jobs"
    TOO_MANY_GLOBS = "too_many_globs"
    OVERLOADED = "overloaded"
    BROKER_FULL = "broker_full"
    NO_WORKER = "no_worker"
    BROKER_UNAVAILABLE = "broker_unavailable"
    STORE_UNAVAILABLE = "store_unavailable"
    DISK_FULL = "disk_full"
    ATTEMPTS_EXHAUSTED = "attempts_exhausted"
    INTERNAL = "internal"


class ProblemDocument(BaseModel):
    """An RFC 9457 problem document; extra members give details of the error."""

    model_config = ConfigDict(title="Problem", extra="allow")

    type: str = "about:blank"
    title: str
    status: int
    code: str
    detail: str
    instance: str | None = None


class TensorError(BaseModel):
    """Why one part of a job failed: a tensor, a benchmark case or an output file; other parts may have succeeded.

    Attributes:
        code: A `Code`.
        message: What failed, with the name and the value at fault.
        index: Position of the invalid entry in its tensor, one number for each dimension; None for other errors.
    """

    code: str
    message: str
    index: list[int] | None = None
