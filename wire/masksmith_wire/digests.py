"""BLAKE3 digests: of uploads, of the inputs that determine a shard's result, and of the parts of a stored tensor."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence

from blake3 import blake3
from pydantic import TypeAdapter

from .json_text import parse_json

DIGEST_LENGTH = 64
DIGESTS_KEY = "masksmith_digests"
"""Metadata member of a file of updated weights: JSON, name of the weight -> digests of its parts."""
PartDigest = tuple[int, str]
"""Rows (along the first dimension) and BLAKE3 of a part of a tensor."""


def digest_bytes(data: bytes | memoryview) -> str:
    """BLAKE3 of `data` in hex."""
    return blake3(data).hexdigest()


def digest_document(document: Mapping[str, object]) -> str:
    """BLAKE3 of a document's canonical JSON, in which members are sorted by name."""
    return digest_bytes(json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode())


def is_digest(text: str) -> bool:
    """Whether `text` has the form of a digest."""
    return len(text) == DIGEST_LENGTH and all(digit in "0123456789abcdef" for digit in text)


def digest_violation(
    name: str, rows: int, digests: Sequence[PartDigest], read: Callable[[int, int], bytes]
) -> str | None:
    """Describe the first part of a tensor that does not match its digest, or say that the parts do not cover the rows.

    None if all parts match, or there are no digests.

    Args:
        name: Name of the tensor.
        rows: Number of its rows.
        digests: Number of rows and digest of each part, in order.
        read: Reads the bytes of some rows, from the first to the last (exclusive).
    """
    if not digests:
        return None
    if sum(count for count, _ in digests) != rows or any(count < 1 for count, _ in digests):
        return f"the digests of {name!r} do not cover its {rows} rows"
    first = 0
    for count, digest in digests:
        if digest_bytes(read(first, first + count)) != digest:
            return f"rows {first} to {first + count} of {name!r} do not match their digest"
        first += count
    return None


def digests_metadata(digests: Mapping[str, Sequence[PartDigest]]) -> dict[str, str]:
    """Build the metadata of a file of updated weights."""
    return {DIGESTS_KEY: json.dumps(digests)}


def read_digests(metadata: Mapping[str, str]) -> dict[str, list[PartDigest]]:
    """Read the digests from a file's metadata; empty if it has none.

    Raises:
        ValueError: If the metadata member does not have the form that `digests_metadata` gives it, or lists a weight
            twice.
    """
    members = parse_json(metadata.get(DIGESTS_KEY, "{}"))
    return TypeAdapter(dict[str, list[PartDigest]]).validate_python(members)
