"""Digests that detect damaged blobs: lists of the BLAKE3 digests of a blob's pieces, and seals of small blobs.

With its list, any piece of a blob can be checked without the rest of the blob. A stored list ends with a seal: a digest
of its content and of the blob's name. The seal detects a damaged list. It also detects a list that was made for a blob
of another name, even if that blob was copied together with its list, so that the two match. Small blobs, which are
always read as a whole, have a seal and no list.
"""

from __future__ import annotations

from dataclasses import dataclass

from blake3 import blake3

PIECE_BYTES = 2**20
DIGEST_BYTES = 32
MAGIC = b"masksmith pieces 1\n"
SIZE_BYTES = 8
"""Bytes of the blob's size in a stored list."""


class DamagedListError(ValueError):
    """The stored form of a list is damaged, or belongs to another blob."""


@dataclass(frozen=True)
class PieceList:
    """Size of a blob, digest of the whole blob, and digests of its pieces of `PIECE_BYTES` (the last may be shorter).

    Attributes:
        size: Size of the blob in bytes.
        digest: BLAKE3 of the blob, in hex.
        piece_digests: BLAKE3 of each piece, `DIGEST_BYTES` each, one after the other.
    """

    size: int
    digest: str
    piece_digests: bytes

    @classmethod
    def of(cls, data: bytes) -> PieceList:
        """Compute the list of a blob in memory."""
        hasher = PieceHasher()
        hasher.update(data)
        return hasher.finish()

    def is_intact(self, number: int, piece: bytes | memoryview) -> bool:
        """Whether `piece` has the size and the digest of piece `number` of the blob."""
        start = number * DIGEST_BYTES
        piece_digest = self.piece_digests[start : start + DIGEST_BYTES]
        return len(piece) == self.piece_bytes(number) and blake3(piece).digest() == piece_digest

    def piece_bytes(self, number: int) -> int:
        """Size of a piece in bytes; 0 if the blob has no piece of this number."""
        return max(0, min(PIECE_BYTES, self.size - number * PIECE_BYTES))

    def encode(self, name: str) -> bytes:
        """Encode the list for the blob of this name: magic, size, digest of the blob, digests of pieces, and seal."""
        content = MAGIC + self.size.to_bytes(SIZE_BYTES, "little") + bytes.fromhex(self.digest) + self.piece_digests
        return content + _seal_of(name, content)

    @classmethod
    def decode(cls, name: str, data: bytes) -> PieceList:
        """Decode the list of the blob of this name.

        Raises:
            DamagedListError: If the list is damaged, or belongs to another blob.
        """
        content, stored_seal = data[:-DIGEST_BYTES], data[-DIGEST_BYTES:]
        if not content.startswith(MAGIC) or stored_seal != _seal_of(name, content):
            raise DamagedListError(f"the list of digests of {name} is damaged")
        start = len(MAGIC) + SIZE_BYTES
        size = int.from_bytes(content[len(MAGIC) : start], "little")
        return cls(size, content[start : start + DIGEST_BYTES].hex(), content[start + DIGEST_BYTES :])


class PieceHasher:
    """Computes a list while the blob arrives in chunks of any size."""

    def __init__(self) -> None:
        self._whole, self._piece = blake3(), blake3()
        self._size, self._piece_digests = 0, bytearray()

    def update(self, chunk: bytes | memoryview) -> None:
        """Add the next chunk."""
        self._whole.update(chunk)
        view, start = memoryview(chunk), 0
        while start < len(view):
            part = view[start : start + PIECE_BYTES - self._size % PIECE_BYTES]
            self._piece.update(part)
            self._size += len(part)
            start += len(part)
            if self._size % PIECE_BYTES == 0:
                self._end_piece()

    @property
    def digest(self) -> str:
        """BLAKE3 of all chunks so far, in hex."""
        return self._whole.hexdigest()

    def finish(self) -> PieceList:
        """Return the list, after the last chunk."""
        if self._size % PIECE_BYTES:
            self._end_piece()
        return PieceList(self._size, self.digest, bytes(self._piece_digests))

    def _end_piece(self) -> None:
        self._piece_digests += self._piece.digest()
        self._piece = blake3()


def seal(name: str, data: bytes) -> bytes:
    """Return the sealed form of a small blob: its data, followed by a digest of name and data."""
    return data + _seal_of(name, data)


def unseal(name: str, data: bytes) -> bytes | None:
    """Return the data of a sealed blob; None if it is damaged, or was sealed under another name."""
    content = data[:-DIGEST_BYTES]
    return content if data[-DIGEST_BYTES:] == _seal_of(name, content) else None


def _seal_of(name: str, content: bytes) -> bytes:
    return blake3(name.encode() + b"\0" + content).digest()
