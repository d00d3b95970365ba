"""Reads pieces of a blob, and checks each piece against its digest in the blob's list."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from .objects import Objects
from .pieces import PIECE_BYTES, PieceList

BATCH_PIECES = 8
"""Maximum number of pieces that are in memory at a time, unless a single range touches more pieces."""


class MismatchError(Exception):
    """A blob is not what its list of pieces, or its known digest, says; or it has no list, and no digest is known."""


class OtherDigestError(MismatchError):
    """A blob's list has another digest of the blob than expected: an intact blob may have replaced the expected one.

    Attributes:
        pieces: The list.
    """

    def __init__(self, pieces: PieceList) -> None:
        super().__init__()
        self.pieces = pieces


class NoListError(MismatchError):
    """The list of a blob is missing or damaged, and the blob's digest is not known: the blob may be intact."""


def read_ranges(objects: Objects, name: str, pieces: PieceList, starts: Sequence[int], length: int) -> list[bytes]:
    """Read ranges of a blob, and check the pieces that they touch.

    Args:
        objects: Where the blob is.
        name: Name of the blob.
        pieces: Digests of its pieces.
        starts: First byte of each range; ascending, so that no piece is read twice.
        length: Bytes of each range; a range is cut at the end of the blob.

    Returns:
        The bytes of each range.

    Raises:
        FileNotFoundError: If the blob does not exist, and a range is not empty.
        MismatchError: If a piece does not have its digest.
    """
    ranges = [(min(start, pieces.size), min(start + length, pieces.size)) for start in starts]
    data_by_number: dict[int, bytes] = {}
    contents = []
    for batch in _batches(ranges):
        numbers = {number for start, stop in batch for number in _piece_numbers(start, stop)}
        # Pieces that the previous batch touches, too, are not read again.
        data_by_number = {number: data_by_number[number] for number in numbers if number in data_by_number}
        data_by_number |= _read_pieces(objects, name, pieces, sorted(numbers - set(data_by_number)))
        contents += [_cut(data_by_number, start, stop) for start, stop in batch]
    return contents


def verify_pieces(objects: Objects, name: str, pieces: PieceList) -> None:
    """Check the size and all pieces of a blob.

    Raises:
        FileNotFoundError: If the blob does not exist.
        MismatchError: If its size is not that of its list, or a piece does not have its digest.
    """
    size = objects.size(name)
    if size is None:
        raise FileNotFoundError(name)
    if size != pieces.size:
        raise MismatchError
    numbers = range(-(-pieces.size // PIECE_BYTES))
    for first in range(0, len(numbers), BATCH_PIECES):
        _read_pieces(objects, name, pieces, numbers[first : first + BATCH_PIECES])


def _read_pieces(objects: Objects, name: str, pieces: PieceList, numbers: Sequence[int]) -> dict[int, bytes]:
    """Read pieces and check each; return their bytes by number."""
    if not numbers:
        return {}
    starts = [number * PIECE_BYTES for number in numbers]
    stops = [start + pieces.piece_bytes(number) for start, number in zip(starts, numbers, strict=True)]
    data_by_number = dict(zip(numbers, objects.get_ranges(name, starts, stops), strict=True))
    for number, data in data_by_number.items():
        if not pieces.is_intact(number, data):
            raise MismatchError
    return data_by_number


def _piece_numbers(start: int, stop: int) -> range:
    """Numbers of the pieces that contain the bytes from `start` to `stop` (exclusive)."""
    return range(start // PIECE_BYTES, -(-stop // PIECE_BYTES)) if start < stop else range(0)


def _batches(ranges: Sequence[tuple[int, int]]) -> Iterator[list[tuple[int, int]]]:
    """Divide ranges into batches that touch at most `BATCH_PIECES` pieces.

    A single range that touches more is a batch of its own.
    """
    batch: list[tuple[int, int]] = []
    numbers: set[int] = set()
    for start, stop in ranges:
        touched = set(_piece_numbers(start, stop))
        if batch and len(numbers | touched) > BATCH_PIECES:
            yield batch
            batch, numbers = [], set()
        batch.append((start, stop))
        numbers |= touched
    if batch:
        yield batch


def _cut(data_by_number: dict[int, bytes], start: int, stop: int) -> bytes:
    """Bytes `start` to `stop` (exclusive) of the blob, from its pieces by number."""
    numbers = _piece_numbers(start, stop)
    offset = start // PIECE_BYTES * PIECE_BYTES
    joined = b"".join(data_by_number[number] for number in numbers)
    return joined[start - offset : stop - offset]
