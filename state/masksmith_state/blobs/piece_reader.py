"""Reads pieces of a blob, and checks each of them against the list of their digests."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from .objects import Objects
from .pieces import PIECE_BYTES, PieceList

BATCH_PIECES = 8
"""Pieces that are in memory at a time while ranges of a large blob are read."""


class MismatchError(Exception):
    """The bytes of a blob do not have the digests of its list."""


def read_ranges(objects: Objects, name: str, pieces: PieceList, starts: Sequence[int], length: int) -> list[bytes]:
    """Read ranges of a blob, and check the pieces that they touch.

    Args:
        objects: Where the blob is.
        name: Name of the blob.
        pieces: Digests of its pieces.
        starts: First byte of each range; ascending, so that no piece is read twice.
        length: Length of each range; a range is cut at the end of the blob.

    Raises:
        FileNotFoundError: If the blob does not exist.
        MismatchError: If a piece does not have its digest.
    """
    ranges = [(min(start, pieces.size), min(start + length, pieces.size)) for start in starts]
    checked: dict[int, bytes] = {}
    parts = []
    for batch in _batches(ranges):
        numbers = {number for start, stop in batch for number in _piece_numbers(start, stop)}
        # Pieces that the previous batch has read are kept.
        checked = {number: checked[number] for number in numbers if number in checked}
        checked |= _read_pieces(objects, name, pieces, sorted(numbers - set(checked)))
        parts += [_cut(checked, start, stop) for start, stop in batch]
    return parts


def verify_pieces(objects: Objects, name: str, pieces: PieceList) -> None:
    """Check the size and all pieces of a blob; raises as `read_ranges` does."""
    size = objects.size(name)
    if size is None:
        raise FileNotFoundError(name)
    if size != pieces.size:
        raise MismatchError
    numbers = range(-(-pieces.size // PIECE_BYTES))
    for first in range(0, len(numbers), BATCH_PIECES):
        _read_pieces(objects, name, pieces, numbers[first : first + BATCH_PIECES])


def _read_pieces(objects: Objects, name: str, pieces: PieceList, numbers: Sequence[int]) -> dict[int, bytes]:
    """Read and check pieces, by number."""
    if not numbers:
        return {}
    starts = [number * PIECE_BYTES for number in numbers]
    stops = [start + pieces.piece_bytes(number) for start, number in zip(starts, numbers, strict=True)]
    by_number = dict(zip(numbers, objects.get_ranges(name, starts, stops), strict=True))
    for number, data in by_number.items():
        if not pieces.is_intact(number, data):
            raise MismatchError
    return by_number


def _piece_numbers(start: int, stop: int) -> range:
    return range(start // PIECE_BYTES, -(-stop // PIECE_BYTES)) if start < stop else range(0)


def _batches(ranges: Sequence[tuple[int, int]]) -> Iterator[list[tuple[int, int]]]:
    """Divide ranges so that each batch touches few pieces; a range that is larger is a batch of its own."""
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


def _cut(pieces: dict[int, bytes], start: int, stop: int) -> bytes:
    numbers = _piece_numbers(start, stop)
    if len(numbers) == 1:
        offset = numbers[0] * PIECE_BYTES
        return pieces[numbers[0]][start - offset : stop - offset]
    joined = b"".join(pieces[number] for number in numbers)
    offset = start // PIECE_BYTES * PIECE_BYTES
    return joined[start - offset : stop - offset]
