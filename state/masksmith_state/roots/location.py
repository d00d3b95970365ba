"""Checks of locations, which are absolute paths or URLs such as `s3://bucket/prefix/file`."""

from __future__ import annotations

import re

from masksmith_state.errors import InvalidLocationError
from masksmith_wire.locations import BUCKET_PREFIX, is_in_bucket

MAX_LENGTH = 1024
"""Largest number of characters of a location. S3 allows keys of up to 1024 bytes."""

BUCKET = re.compile(r"[A-Za-z0-9._-]+")
"""Pattern of the name of a bucket.

The rules of S3 for new buckets are stricter, but old buckets and other stores need not follow these rules.
"""


def normalise(text: str) -> str:
    """Check a location, and return it without slashes at its end.

    Raises:
        InvalidLocationError: If it is neither an absolute path nor an `s3://` URL; is too long; has characters that
            cannot be printed; has a part between slashes that is empty, `.` or `..`; or is a URL with credentials, a
            query, a fragment, or a bucket whose name has other characters than letters, digits and `._-`.
    """
    if len(text) > MAX_LENGTH:
        raise InvalidLocationError(text[:80], f"it has {len(text)} characters, and at most {MAX_LENGTH} are allowed")
    if not text.isprintable():
        raise InvalidLocationError(ascii(text)[:200], "it has characters that cannot be printed")
    prefix, rest = (BUCKET_PREFIX, text[len(BUCKET_PREFIX) :]) if is_in_bucket(text) else ("/", text[1:])
    if not text.startswith(prefix):
        raise InvalidLocationError(text, "it is neither an absolute path nor a URL such as s3://bucket/prefix")
    if prefix == BUCKET_PREFIX and "@" in rest.partition("/")[0]:
        # The message must not contain the credentials.
        raise InvalidLocationError(
            BUCKET_PREFIX + "...", "it has credentials, which belong in the environment of service and workers"
        )
    if prefix == BUCKET_PREFIX and ("?" in rest or "#" in rest):
        raise InvalidLocationError(BUCKET_PREFIX + re.split("[?#]", rest)[0], "it has a query or a fragment")
    parts = rest.rstrip("/").split("/")
    _check_parts(text, parts)
    if prefix == BUCKET_PREFIX and not BUCKET.fullmatch(parts[0]):
        raise InvalidLocationError(
            text, f"the name of its bucket, {parts[0]!r}, has other characters than A-Za-z0-9._-"
        )
    return prefix + "/".join(parts)


def _check_parts(text: str, parts: list[str]) -> None:
    """Raise `InvalidLocationError` if one of the parts of the location `text` is empty, `.` or `..`."""
    for part in parts:
        if part in ("", ".", ".."):
            raise InvalidLocationError(text, f"its part {part!r} is not the name of a file or a directory")


def is_inside(location: str, base: str) -> bool:
    """Whether a normalised location is `base`, also normalised, or below it."""
    return location == base or location.startswith(base + "/")
