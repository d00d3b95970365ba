"""Content addresses: BLAKE3 digests of uploads, and of the inputs that determine a shard's masks."""

from __future__ import annotations

import json
from collections.abc import Mapping

from blake3 import blake3

DIGEST_LENGTH = 64


def digest_bytes(data: bytes | memoryview) -> str:
    """BLAKE3 of `data` in hex."""
    return blake3(data).hexdigest()


def digest_document(document: Mapping[str, object]) -> str:
    """BLAKE3 of a document's canonical JSON, in which members are sorted by name."""
    return digest_bytes(json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode())


def is_digest(text: str) -> bool:
    """Whether `text` has the form of a digest."""
    return len(text) == DIGEST_LENGTH and all(digit in "0123456789abcdef" for digit in text)
