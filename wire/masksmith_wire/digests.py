"""Names made of contents: BLAKE3 of uploads, and of everything that determines a shard's masks."""

from __future__ import annotations

import json
from collections.abc import Mapping

from blake3 import blake3

DIGEST_LENGTH = 64


def digest_bytes(data: bytes | memoryview) -> str:
    """BLAKE3 of `data` in hex."""
    return blake3(data).hexdigest()


def digest_document(document: Mapping[str, object]) -> str:
    """BLAKE3 of a document's canonical JSON: the same members give the same name, in whatever order."""
    return digest_bytes(json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode())


def is_digest(text: str) -> bool:
    """Whether `text` has the form of a digest."""
    return len(text) == DIGEST_LENGTH and all(letter in "0123456789abcdef" for letter in text)
