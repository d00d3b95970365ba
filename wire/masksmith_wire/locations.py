"""The two forms of a reference to a file or directory in a root: an absolute path, and the URL of an object."""

from __future__ import annotations

BUCKET_PREFIX = "s3://"
"""Beginning of the URLs of objects in buckets; only services and workers read objects."""


def is_reference(text: str) -> bool:
    """Whether a text has the form of a reference."""
    return text.startswith("/") or is_in_bucket(text)


def is_in_bucket(text: str) -> bool:
    """Whether a text has the form of an object's URL."""
    return text.startswith(BUCKET_PREFIX)
