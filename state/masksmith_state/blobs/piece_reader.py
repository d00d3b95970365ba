"""Reads pieces of a blob, and checks each piece against its digest in the blob's list."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from .objects import Objects
from .pieces import PIECE_BYTES, PieceList

BATCH_PIECES = 8
"""Most pieces that are in memory at a time, unless a single range touches more of them."""


class MismatchError(Exception):
    """The bytes of a blob do not have the digests in its list."""


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
        FileNotFoundError: If the blob does not exist; empty ranges are not looked up.
        MismatchError: If a piece does not have its digest.
    """
    ranges = [(min(start, pieces.size), min(start + length, pieces.size)) for start in starts]
    checked: dict[int, bytes] = {}
    contents = []
    for batch in _batches(ranges):
        numbers = {number for start, stop in batch for number in _piece_numbers(start, stop)}
        # Pieces that the previous batch has read are kept.
        checked = {number: checked[number] for number in numbers if number in checked}
        checked |= _read_pieces(objects, name, pieces, sorted(numbers - set(checked)))
        contents += [_cut(checked, start, stop) for start, stop in batch]
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
    """Numbers of the pieces that contain the bytes from `start` to `stop` (exclusive)."""
    return range(start // PIECE_BYTES, -(-stop // PIECE_BYTES)) if start < stop else range(0)


def _batches(ranges: Sequence[tuple[int, int]]) -> Iterator[list[tuple[int, int]]]:
    """Divide ranges so that each batch touches at most `BATCH_PIECES` pieces; a larger range is a batch of its own."""
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


def _cut(by_number: dict[int, bytes], start: int, stop: int) -> bytes:
    """Bytes `start` to `stop` (exclusive) of the blob, from its pieces by number."""
    numbers = _piece_numbers(start, stop)
    offset = start // PIECE_BYTES * PIECE_BYTES
    if len(numbers) == 1:
        # A piece need not be copied before the range is cut from it.
        return by_number[numbers[0]][start - offset : stop - offset]
    joined = b"".join(by_number[number] for number in numbers)
    return joined[start - offset : stop - offset]
