"""Counts the parts of a request that are not its body: line, headers, trailers and chunk framing."""

from __future__ import annotations

from masksmith_service.errors import RequestError
from masksmith_wire.errors import Code

from .table import limit

MAX_FIELDS = limit("fields")
FRAMING_BYTES = 16
"""Bytes of framing that are allowed for each piece of a body, in addition to twice the length of the piece."""


class RequestMeter:
    """Counts the bytes and fields that a client sends outside of bodies.

    `count` counts what the parser has reported. `pending_bytes` includes what the parser has received but not reported
    yet, such as an unfinished field.

    Attributes:
        limit_bytes: Limit in bytes of a request's line and headers together; and, separately, of its trailers and chunk
            framing together.
        pending_bytes: Bytes received since the end of the last head or body, less what `count_body` subtracts. At such
            an end it becomes 0, so what arrived in the same read as the end is not counted. The connection adds the
            bytes, and checks the limit.
        in_body: Whether a head is complete, and its body is not.
        error: The error with which the request is to be rejected, set by `set_error`; None if there is none.
    """

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.error: RequestError | None = None
        self.restart(in_body=False)

    def restart(self, *, in_body: bool) -> None:
        """Reset the counters at the beginning of a body, or of the next head."""
        self.in_body = in_body
        self.pending_bytes = self._fields = self._counted_bytes = 0

    def count(self, size: int, fields: int = 0) -> None:
        """Count a piece of the request target, or a field of the head or the trailers.

        Raises:
            RequestError: If a limit is exceeded.
        """
        self._fields += fields
        self._counted_bytes += size
        if self._fields > MAX_FIELDS or self._counted_bytes > self.limit_bytes:
            raise self.set_error(self.too_large_error())

    def count_body(self, size: int) -> None:
        """Subtract the size of a piece of a body, and the framing allowed for it, from `pending_bytes`."""
        allowed_framing = 2 * size + FRAMING_BYTES
        self.pending_bytes = max(0, self.pending_bytes - size - allowed_framing)

    def set_error(self, error: RequestError) -> RequestError:
        """Set and return the error with which the request is answered."""
        self.error = error
        return error

    def too_large_error(self) -> RequestError:
        """Error that names the part of the request that is too large."""
        part = "trailers and chunk framing" if self.in_body else "line and headers"
        limits = f"max_request_head_bytes = {self.limit_bytes} or have more than {MAX_FIELDS} fields"
        detail = f"the request's {part} are larger than {limits}"
        return RequestError(Code.REQUEST_HEAD_TOO_LARGE, detail, limit=self.limit_bytes)
