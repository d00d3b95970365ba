"""Parses headers of files that clients upload or refer to, checks them against bounds, and converts errors."""

from __future__ import annotations

import math

from masksmith_service.errors import RequestError
from masksmith_service.settings import Settings
from masksmith_wire.errors import Code
from masksmith_wire.headers import (
    MAX_NAME_LENGTH,
    Header,
    HeaderError,
    HeaderTooLargeError,
    UnknownDtypeError,
    check_members,
    parse_header,
)


def parse_untrusted(text: bytes, settings: Settings, file_bytes: int | None = None) -> Header:
    """Parse a JSON header, and check it against the bounds.

    Args:
        text: The JSON header.
        settings: The bounds.
        file_bytes: Size of the whole file, if known; checked against the size that the header implies.

    Raises:
        HeaderError: If the header is invalid, or has too many members; `header_error` converts it.
        RequestError: As `check_header`.
    """
    check_members(text, settings.max_tensors)
    header = parse_header(text, file_bytes)
    check_header(header, settings)
    return header


def header_error(error: HeaderError, location: str | None = None) -> RequestError:
    """Return the request's error for a header's error; `location`: where the file is, None if it is in no root."""
    detail = str(error) if location is None else f"{location!r}: {error}"
    if isinstance(error, HeaderTooLargeError):
        return RequestError(Code.HEADER_TOO_LARGE, f"{detail}; put fewer tensors into a file", location=location)
    code = Code.UNKNOWN_DTYPE if isinstance(error, UnknownDtypeError) else Code.INVALID_SAFETENSORS
    return RequestError(code, detail, location=location)


def check_header(header: Header, settings: Settings) -> None:
    """Check the number of tensors, the lengths of their names, and their numbers of entries.

    Raises:
        RequestError: If there are too many tensors, or one has too long a name or too many entries.
    """
    check_tensor_count(len(header.tensors), settings.max_tensors, "the file")
    longest = max(header.tensors, key=len, default="")
    if len(longest) > MAX_NAME_LENGTH:
        detail = (
            f"tensor {longest[:40]!r}... has a name of {len(longest)} characters, at most {MAX_NAME_LENGTH} are allowed"
        )
        raise RequestError(Code.INVALID_SAFETENSORS, detail, limit=MAX_NAME_LENGTH)
    for name, entry in header.tensors.items():
        count = math.prod(entry.shape)
        if count > settings.max_elements:
            detail = f"tensor {name[:200]!r} has {count} entries, max_elements is {settings.max_elements}; split it"
            raise RequestError(Code.TOO_MANY_ELEMENTS, detail, tensor=name[:200], limit=settings.max_elements)


def check_tensor_count(count: int, max_tensors: int, owner: str = "the job") -> None:
    """Check the number of tensors of a file, an index, a model or a job; `owner` names it in the error.

    Raises:
        RequestError: If there are too many.
    """
    if count > max_tensors:
        detail = f"{owner} has {count} tensors, max_tensors is {max_tensors}"
        raise RequestError(Code.TOO_MANY_TENSORS, detail, limit=max_tensors)
