"""Writes a file of weights of an output: the model's file, with the values of masked and duplicate tensors replaced.

A tensor may be in several files of the model. The index names one of them; the tensor's copies in the other files are
its duplicates. In the output, they get the same values as the tensor in the file that the index names.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from blake3 import blake3

from masksmith.layouts import ITEM_BYTES
from masksmith_state.jobs.outputs import NOTE_PREFIX, FileNote, OutputFile
from masksmith_state.jobs.shards import PlannedTensor, Shard
from masksmith_wire.masks import masked_bytes, packed_bytes
from masksmith_wire.output_names import JOURNAL_NAME, RECORD_NAME

from .finish import delete_notes, finish
from .work import ForeignOutputError, OutputWork

BAND_BYTES = 8 * 2**20
"""Bytes of the rows of a weight that are masked at once, unless one row has more."""


def write_output_file(work: OutputWork, number: int) -> None:
    """Write a file of weights, unless it is complete; with the last file, finish the output.

    Raises:
        ForeignOutputError: If the directory no longer belongs to this job, or if the file was changed after it was
            complete.
        ShardFailedError: If a tensor of the file has no mask.
    """
    sizes = work.file_sizes()
    if _is_finished(work, sizes):
        # A worker that was killed at the end of `finish` leaves notes.
        if any(name.startswith(NOTE_PREFIX) for name in sizes):
            delete_notes(work)
        return
    if not work.has_marker():
        # Another worker may have finished the output since its files were listed.
        if _is_finished(work, work.file_sizes()):
            return
        raise ForeignOutputError(
            f"{work.output.location!r} is no longer the unfinished output of this job; "
            "submit the job with another output"
        )
    try:
        _write_or_check(work, work.output.files[number], sizes)
        sizes = work.file_sizes()
        if all(_is_complete(work, file, sizes) and _is_checked(work, file) for file in work.output.files):
            finish(work)
    except FileNotFoundError:
        # Another worker may have finished the same output meanwhile, and deleted its notes.
        if not _is_finished(work, work.file_sizes()):
            raise


def _write_or_check(work: OutputWork, file: OutputFile, sizes: dict[str, int]) -> None:
    """Write a file of weights, then its note.

    If an earlier job wrote the file already, check the file's digest instead, and write a note that names this job as
    the one that checked it. If masks or weights of the file were computed again since, with other values, the file is
    written again.

    Raises:
        ForeignOutputError: If the file has another digest: its content is not from masksmith, so it is not overwritten.
        ShardFailedError: If a tensor of the file has no mask.
    """
    if not _is_complete(work, file, sizes):
        _write(work, file)
    elif not _is_checked(work, file):
        note, hasher = work.note(file.name), blake3()
        for piece in work.read_output(file.name, file.bytes):
            hasher.update(piece)
        if hasher.hexdigest() != note.blake3:
            location = work.output.location_of(file.name)
            raise ForeignOutputError(
                f"{location!r} is not as masksmith wrote it; restore it, or delete it to have it written again, and "
                "submit the job again"
            )
        if note.results == work.results_digest(file):
            _write_note(work, file, note)
        else:
            # The old note is deleted first: it has the old file's digest, with which the new file would be refused.
            work.delete(work.output.note_location(file.name))
            _write(work, file)


def _write(work: OutputWork, file: OutputFile) -> None:
    """Write a file of weights, then its note."""
    pieces = _HashedPieces(_pieces(work, file))
    work.write(work.output.location_of(file.name), pieces)
    results = work.results_digest(file)
    _write_note(work, file, FileNote(bytes=pieces.size, blake3=pieces.hasher.hexdigest(), results=results))


def _write_note(work: OutputWork, file: OutputFile, note: FileNote) -> None:
    text = note.model_copy(update={"job": work.job}).model_dump_json()
    work.write(work.output.note_location(file.name), [text.encode()])


class _HashedPieces:
    """Pieces whose bytes are hashed and counted while they are written."""

    def __init__(self, pieces: Iterable[bytes | memoryview]) -> None:
        self._pieces, self.hasher, self.size = pieces, blake3(), 0

    def __iter__(self) -> Iterator[bytes | memoryview]:
        for piece in self._pieces:
            self.hasher.update(piece)
            self.size += len(piece)
            yield piece


def _is_finished(work: OutputWork, sizes: dict[str, int]) -> bool:
    """Whether the whole output is finished: it has the record of this job's output, and no marker (`JOURNAL_NAME`)."""
    return JOURNAL_NAME not in sizes and RECORD_NAME in sizes and work.has_record()


def _is_complete(work: OutputWork, file: OutputFile, sizes: dict[str, int]) -> bool:
    """Whether a file of weights is complete: it has its final size, and a note that was written after it."""
    note = work.output.note_location(file.name).removeprefix(work.output.location + "/")
    return note in sizes and sizes.get(file.name) == file.bytes


def _is_checked(work: OutputWork, file: OutputFile) -> bool:
    """Whether a complete file was written or checked by this job, or by a later one: ids are in order of creation."""
    return work.note(file.name).job >= work.job


def _pieces(work: OutputWork, file: OutputFile) -> Iterator[bytes | memoryview]:
    """Yield the bytes of the model's file; those of masked tensors, and of duplicates, are replaced."""
    header, position = work.header(file), 0
    file_by_duplicate = work.output.duplicates.get(file.name, {})
    for entry in sorted(header.tensors.values(), key=lambda entry: (entry.start, entry.stop)):
        number = work.tensor_numbers.get(entry.name)
        if number is None and entry.name not in file_by_duplicate:
            continue
        yield from work.read_pieces(file.source, position, entry.start)
        if number is not None:
            yield from _masked_tensor(work, number)
        else:
            yield from _indexed_tensor(work, entry.name, file_by_duplicate[entry.name])
        position = entry.stop
    yield from work.read_pieces(file.source, position, file.bytes)


def _indexed_tensor(work: OutputWork, name: str, file_name: str) -> Iterator[bytes]:
    """Read a tensor from the file that the index names, in place of its duplicate in another file."""
    indexed_file = next(file for file in work.output.files if file.name == file_name)
    entry = work.header(indexed_file).tensors[name]
    return work.read_pieces(indexed_file.source, entry.start, entry.stop)


def _masked_tensor(work: OutputWork, number: int) -> Iterator[bytes | memoryview]:
    """Yield a tensor with zeros in its dropped entries; with an update, its updated values."""
    tensor = work.plan.tensors[number]
    for index in work.shards_by_tensor[number]:
        work.check()
        if work.plan.options.update is None:
            yield from _masked_rows(work, tensor, work.shards[index], work.results.mask(index))
        else:
            yield work.results.weights(index)


def _masked_rows(work: OutputWork, tensor: PlannedTensor, shard: Shard, mask: bytes) -> Iterator[bytes | memoryview]:
    """Yield the rows of a shard with zeros in their dropped entries; `mask` is packed."""
    packed = np.frombuffer(mask, np.uint8)
    row_shape = tuple(tensor.shape[1:])
    packed_row_bytes = packed_bytes((1, *row_shape))
    step = max(1, BAND_BYTES // tensor.row_bytes)
    for first in range(shard.first, shard.last, step):
        work.check()
        last = min(first + step, shard.last)
        data = work.inputs.data(tensor, first, last)
        band = packed[(first - shard.first) * packed_row_bytes : (last - shard.first) * packed_row_bytes]
        yield masked_bytes(data, band, ITEM_BYTES[tensor.dtype], tensor.shape[-1])
