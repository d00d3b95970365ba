"""Finds the finished tensors of a job, and streams their masks or updated weights as one safetensors file."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from masksmith_service.errors import RequestError
from masksmith_state.blobs.names import result_name, weights_name
from masksmith_state.blobs.store import BlobStore
from masksmith_state.errors import DamagedBlobError
from masksmith_state.jobs.model import JobRecord
from masksmith_state.jobs.records import JobRecords
from masksmith_state.jobs.reports import ShardReport
from masksmith_state.jobs.shards import PlannedTensor, Shard, shards_by_tensor
from masksmith_state.jobs.unreadable_records import as_unreadable_record_errors
from masksmith_wire import masks
from masksmith_wire.digests import PartDigest, digests_metadata
from masksmith_wire.errors import Code
from masksmith_wire.headers import build_header
from masksmith_wire.masks import MaskInfo

from .missing_blobs import check_exist

VERIFIED_BYTES = 2**28
"""If a file's blobs have at most this many bytes together, they are checked before the first byte is sent.

If they have more, they are checked while they are sent.
"""
UNPACKED_BYTES = 2**20
"""Largest number of bytes of bools that are sent at once."""
Blob = tuple[str, int, str | None]
"""Name, size and digest of a blob; the digest is None if the blob was stored without one."""
FinishedTensors = list[tuple[PlannedTensor, list[tuple[Shard, ShardReport]]]]
"""Tensors whose shards have all succeeded; each tensor with its shards and their reports."""


def finished_tensors(record: JobRecord, records: JobRecords) -> FinishedTensors:
    """Read the finished tensors of a masks job; the job need not have ended.

    Raises:
        NoMasksError: If the job is a benchmark.
        RequestError: If the job was deleted after its record was read.
        UnreadableRecordError: If shards and reports do not have the form in which this version writes them.
    """
    tensors = record.plan.tensors
    shards, reports = records.shards(record.id), records.reports(record.id)
    if not shards:
        raise RequestError(Code.JOB_NOT_FOUND, f"job {record.id} was deleted meanwhile")
    with as_unreadable_record_errors(record.id):
        return [
            (tensor, [(shards[index], reports[index]) for index in indices])
            for tensor, indices in zip(tensors, shards_by_tensor(tensors, shards), strict=True)
            if all(index in reports and reports[index].result is not None for index in indices)
        ]


@dataclass(frozen=True)
class ResultsFile:
    """A safetensors file: a header and the bytes of blobs, one after the other; with `shapes`, masks are unpacked.

    Attributes:
        job: The job.
        content: `masks` or `weights`.
        header: The first bytes of the file: the header's length and the header.
        blobs: Name, size and digest of each blob.
        shapes: Shape of the part of a mask in each blob, if masks are to be unpacked to bool; else None.
    """

    job: JobRecord
    content: str
    header: bytes
    blobs: Sequence[Blob]
    shapes: Sequence[tuple[int, ...]] | None = None

    @property
    def size(self) -> int:
        """Size of the file in bytes."""
        sizes = [size for _, size, _ in self.blobs] if self.shapes is None else map(math.prod, self.shapes)
        return len(self.header) + sum(sizes)

    def check(self, store: BlobStore) -> None:
        """Check that all blobs exist and are not damaged, before the first byte is sent.

        If the blobs have more than `VERIFIED_BYTES` together, only their sizes are checked here. Their bytes are
        checked while they are sent; the connection is closed at a damaged piece.

        Raises:
            RequestError: If there are no blobs, or one is missing.
            DamagedBlobError: If a blob is damaged, or has another size.
        """
        if not self.blobs:
            detail = f"no tensor of job {self.job.id} has {self.content}; its state is {self.job.state}"
            raise RequestError(Code.RESULT_NOT_FOUND, detail)
        check_exist(store, (name for name, _, _ in self.blobs))
        stored_sizes = [store.size(name) for name, _, _ in self.blobs]
        is_small = sum(size for _, size, _ in self.blobs) <= VERIFIED_BYTES
        for (name, size, digest), stored_size in zip(self.blobs, stored_sizes, strict=True):
            if is_small or stored_size != size:
                store.verify(name, digest)
            if stored_size != size:  # An intact blob of another size: the file would not have its announced length.
                raise DamagedBlobError(name, is_set_aside=False)

    async def stream(self, store: BlobStore) -> AsyncIterator[bytes]:
        """Yield the file in pieces."""
        yield self.header
        for number, (name, _, digest) in enumerate(self.blobs):
            if self.shapes is None:
                async for piece in store.stream(name, digest):
                    yield piece
            else:
                async for piece in unpack_stream(store.stream(name, digest), self.shapes[number]):
                    yield piece


async def unpack_stream(packed: AsyncIterator[bytes], shape: tuple[int, ...]) -> AsyncIterator[bytes]:
    """Unpack the bits of a mask as they are received, at most `UNPACKED_BYTES` at a time; one byte for each entry."""
    packed_row_bytes, cols = masks.packed_bytes((1, shape[-1])), shape[-1]
    pending, row_entries_left = bytearray(), cols
    async for piece in packed:
        pending += piece
        if cols <= UNPACKED_BYTES:
            while rows := min(UNPACKED_BYTES // cols, len(pending) // packed_row_bytes):
                yield masks.unpack(_take(pending, rows * packed_row_bytes), (rows, cols)).tobytes()
            continue
        # A row of more than `UNPACKED_BYTES` is sent in pieces; the last byte of a packed row may have unused bits.
        while pending:
            count = min(len(pending), UNPACKED_BYTES // 8, -(-row_entries_left // 8))
            entries = min(row_entries_left, 8 * count)
            yield masks.unpack(_take(pending, count), (entries,)).tobytes()
            row_entries_left = row_entries_left - entries or cols


def _take(pending: bytearray, count: int) -> npt.NDArray[np.uint8]:
    """Remove `count` bytes from the beginning of `pending`, and return them."""
    removed = np.frombuffer(bytes(pending[:count]), np.uint8)
    del pending[:count]
    return removed


def masks_file(record: JobRecord, records: JobRecords, *, as_bool: bool) -> ResultsFile:
    """Return the file of the masks of a job's finished tensors, with one bit per entry, or one byte if `as_bool`.

    Raises as `finished_tensors` does.
    """
    options, tensors = record.plan.options, finished_tensors(record, records)
    infos = {
        tensor.name: MaskInfo(
            shape=tensor.shape,
            pattern=parts[0][1].pattern or options.pattern,
            ragged=options.ragged,
            axis=options.axis,
            axes=tensor.axes,
            out_parts=tensor.out_parts,
            digests=_digests([(shard, report.mask_digest) for shard, report in parts]),
        )
        for tensor, parts in tensors
    }
    shapes = [(shard.last - shard.first, *tensor.shape[1:]) for tensor, parts in tensors for shard, _ in parts]
    reports = [report for _, parts in tensors for _, report in parts]
    blobs = [
        (result_name(str(report.result)), masks.packed_bytes(shape), report.mask_digest)
        for report, shape in zip(reports, shapes, strict=True)
    ]
    return ResultsFile(record, "masks", masks.file_header(infos, as_bool=as_bool), blobs, shapes if as_bool else None)


def weights_file(record: JobRecord, records: JobRecords) -> ResultsFile:
    """Return the file of the updated weights of a job's finished tensors, each in its own dtype and shape.

    Raises:
        RequestError: If the job updates no weights; also raises as `finished_tensors` does.
    """
    if record.plan.options.update is None:
        detail = f"job {record.id} updates no weights; submit it with update=reconstruct or update=admm"
        raise RequestError(Code.RESULT_NOT_FOUND, detail)
    tensors = finished_tensors(record, records)
    blobs = [
        (weights_name(str(report.result)), (shard.last - shard.first) * tensor.row_bytes, report.weights_digest)
        for tensor, parts in tensors
        for shard, report in parts
    ]
    digests = {
        tensor.name: _digests([(shard, report.weights_digest) for shard, report in parts]) for tensor, parts in tensors
    }
    entries = {tensor.name: (tensor.dtype, tensor.shape) for tensor, _ in tensors}
    header = build_header(entries, digests_metadata(digests))
    return ResultsFile(record, "weights", header, blobs)


def _digests(parts: Sequence[tuple[Shard, str | None]]) -> list[PartDigest]:
    """Number of rows and digest of each part of a tensor; empty if a part was stored without a digest."""
    digests = [(shard.last - shard.first, digest) for shard, digest in parts if digest is not None]
    return digests if len(digests) == len(parts) else []
