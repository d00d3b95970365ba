"""Reads rows of a tensor (in the store or a root) and of its mask, without loading the whole tensor."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from masksmith.layouts import ITEM_BYTES
from masksmith.patterns import matrix_shape, parse
from masksmith_service.errors import RequestError
from masksmith_service.jobs.missing_blobs import missing_blob_error
from masksmith_service.jobs.results import finished_tensors
from masksmith_service.references.access import LocatedPath
from masksmith_state.blobs.names import result_name, upload_name
from masksmith_state.blobs.store import BlobStore
from masksmith_state.jobs.model import JobRecord
from masksmith_state.jobs.records import JobRecords
from masksmith_state.jobs.shards import PlannedTensor
from masksmith_wire import masks
from masksmith_wire.documents import MasksOptions
from masksmith_wire.dtypes import to_numpy
from masksmith_wire.errors import Code

from .tiling import Tiling, count_leading_stacks

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float32]
SPAN_BYTES = 16 * 2**20
"""Maximum bytes of a file in a root that are read in one request for several rows."""
GAP_BYTES = 2**20
"""Rows of a file in a root with at most this many bytes between them are read in one request.

A request to a bucket takes about as long as to read this many bytes. The number of requests is at most the number of
rows, and at most about the number of MiB from the first to the last row.
"""
NARROW_WIDTH = 128
"""Rows of at most this many columns are read whole, since adjacent whole rows are a single range.

To read one row on its own takes about as long as to read this many entries.
"""
Entry = TypeVar("Entry", bound=np.generic)


@dataclass(frozen=True)
class MaskedLayer:
    """A tensor with a complete mask, as one matrix; without a layout, `[out, kernel * in]`.

    With a layout, stacked matrices are one below another, and a transposed matrix stays transposed, as stored.

    Attributes:
        tensor: Location of the weight.
        options: Options of the job; if the tensor has a pattern of its own, with that pattern.
        first_rows: First row of each part of the mask, ascending.
        part_blobs: Name of each part in the store, and its digest.
        file: The file that the weight is in, if it is in a root; only `read_scores` needs it. `find_layer` leaves it
            None, since not every principal may read the root.
    """

    tensor: PlannedTensor
    options: MasksOptions
    first_rows: Sequence[int]
    part_blobs: Sequence[tuple[str, str | None]]
    file: LocatedPath | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the matrix."""
        return matrix_shape(self._merged_shape)

    @property
    def tiling(self) -> Tiling:
        """Where the pattern's tiles are in the matrix."""
        return Tiling.of(self.tensor, parse(self.options.pattern, axis=self.options.axis, ragged=self.options.ragged))

    @property
    def _merged_shape(self) -> tuple[int, ...]:
        """The tensor's shape, with its leading `stack` dimensions and the rows of each matrix merged into one."""
        shape, stack_count = self.tensor.shape, count_leading_stacks(self.tensor.layout)
        return (math.prod(shape[: stack_count + 1]), *shape[stack_count + 1 :])

    def width_to_read(self, width: int) -> int:
        """Return how many entries of a row are read for `width` of its columns: all, unless columns are read alone."""
        return width if self._reads_columns_alone else self.shape[1]

    def read_mask(self, store: BlobStore, rows: Sequence[int], first: int, last: int) -> Bools:
        """Read the mask, True = kept, of some rows (ascending) and the columns `first` to `last` (exclusive).

        Raises:
            RequestError: If a part is no longer in the store.
        """
        row_bytes = masks.packed_bytes(self._merged_shape[1:])
        start, stop = (first // 8, -(-last // 8)) if self._reads_columns_alone else (0, row_bytes)
        pieces = []
        for part_number, part_rows in self._by_part(rows):
            first_row = self.first_rows[part_number]
            starts, length = _row_ranges(part_rows, -first_row * row_bytes, row_bytes, start, stop)
            name, digest = self.part_blobs[part_number]
            pieces += _read_ranges(store, name, starts, length, digest)
        packed = np.frombuffer(b"".join(pieces), np.uint8)
        if self._is_flat:
            bits = np.unpackbits(packed.reshape(len(rows), stop - start), axis=1, bitorder="little")
            return bits[:, first - 8 * start : last - 8 * start].view(np.bool_)
        return _flatten(masks.unpack(packed, (len(rows), *self._merged_shape[1:])))[:, first:last]

    def read_scores(self, store: BlobStore, rows: Sequence[int], first: int, last: int) -> Floats:
        """Read the absolute values of the tensor, which has weights or given scores, in some rows and columns.

        The rows are ascending; the columns are `first` to `last` (exclusive). Values that exceed the largest float32
        are returned as that value, since pictures and profiles are of float32.

        Raises:
            RequestError: If the weight was uploaded, and the upload is no longer in the store.
            ChangedSourceError: If the file in a root has changed since the job was submitted.
        """
        item_bytes, row_shape = ITEM_BYTES[self.tensor.dtype], self._merged_shape[1:]
        row_bytes = item_bytes * math.prod(row_shape)
        start, stop = (first * item_bytes, last * item_bytes) if self._reads_columns_alone else (0, row_bytes)
        starts, length = _row_ranges(rows, self.tensor.start, row_bytes, start, stop)
        data = b"".join(self._read_weight(store, starts, length))
        if self._reads_columns_alone:
            values = to_numpy(data, self.tensor.dtype, (len(rows), last - first))
        else:
            values = _flatten(to_numpy(data, self.tensor.dtype, (len(rows), *row_shape)))[:, first:last]
        # As floats, since the magnitude of the lowest integer, such as -128 of I8, is not an integer of the same dtype.
        values = values.astype(np.promote_types(values.dtype, np.float32), copy=False)
        scores: Floats = np.minimum(np.abs(values), np.finfo(np.float32).max).astype(np.float32)
        return scores

    def _read_weight(self, store: BlobStore, starts: list[int], length: int) -> list[bytes]:
        source = self.tensor.source
        if source is None:
            return _read_ranges(store, upload_name(self.tensor.digest), starts, length)
        assert self.file is not None
        pieces = []
        for span in _spans(starts, length):
            data = self.file.root.read(self.file.path, span[0], span[-1] + length, source.version)
            pieces += [data[start - span[0] : start - span[0] + length] for start in span]
        return pieces

    @property
    def _is_flat(self) -> bool:
        """Whether a stored row has one dimension, so that its columns can be read without the whole row."""
        return len(self._merged_shape) == 2

    @property
    def _reads_columns_alone(self) -> bool:
        """Whether only the needed columns of a row are read: it is possible (`_is_flat`), and rows are not narrow."""
        return self._is_flat and self.shape[1] > NARROW_WIDTH

    def _by_part(self, rows: Sequence[int]) -> Iterator[tuple[int, Sequence[int]]]:
        """Group rows (ascending) by the number of the part of the mask that they are in."""
        next_row = 0
        while next_row < len(rows):
            part_number = bisect_right(self.first_rows, rows[next_row]) - 1
            following_parts = self.first_rows[part_number + 1 : part_number + 2]
            stop = bisect_left(rows, following_parts[0]) if following_parts else len(rows)
            yield part_number, rows[next_row:stop]
            next_row = stop


def find_layer(record: JobRecord, records: JobRecords, name: str) -> MaskedLayer:
    """Find a tensor of a job, and the parts of its mask; the mask must be complete.

    Raises:
        RequestError: If the job has no such tensor, or no complete mask of it.
        NoMasksError: If the job is a benchmark.
    """
    if not any(tensor.name == name for tensor in record.plan.tensors):
        detail = f"job {record.id} has no tensor {name[:200]!r}"
        raise RequestError(Code.UNKNOWN_TENSOR, detail, status=404, tensor=name[:200])
    tensor, parts = next((each for each in finished_tensors(record, records) if each[0].name == name), (None, []))
    if tensor is None:
        detail = f"tensor {name!r} of job {record.id} has no mask; the job is {record.state}"
        raise RequestError(Code.RESULT_NOT_FOUND, detail, tensor=name)
    # The pattern in a shard's report is the tensor's own; it is None if the tensor has the job's pattern.
    options = record.plan.options.model_copy(update={"pattern": parts[0][1].pattern or record.plan.options.pattern})
    blobs = [(result_name(str(report.result)), report.mask_digest) for _, report in parts]
    # `shard.first` is an index in the tensor's first dimension; in a stack, each index has several rows of the matrix.
    rows_per_index = math.prod(tensor.shape[1 : count_leading_stacks(tensor.layout) + 1])
    return MaskedLayer(tensor, options, [shard.first * rows_per_index for shard, _ in parts], blobs)


def _flatten(rows: npt.NDArray[Entry]) -> npt.NDArray[Entry]:
    """Rearrange rows `[rows, in, *kernel]` to `[rows, kernel * in]`."""
    return np.moveaxis(rows, 1, -1).reshape(len(rows), -1)


def _row_ranges(rows: Sequence[int], offset: int, row_bytes: int, start: int, stop: int) -> tuple[list[int], int]:
    """Return the starts, and the length, of the ranges that hold the bytes `start` to `stop` (exclusive) of some rows.

    Adjacent whole rows are one range, since each range takes much more time and memory than a short row.

    Args:
        rows: The rows, ascending.
        offset: Where row 0 starts.
        row_bytes: Bytes of a row.
        start: First byte that is read of each row.
        stop: Byte of each row before which reading ends.
    """
    if stop - start == row_bytes and rows[-1] - rows[0] == len(rows) - 1:
        return [offset + rows[0] * row_bytes], len(rows) * row_bytes
    return [offset + row * row_bytes + start for row in rows], stop - start


def _spans(starts: Sequence[int], length: int) -> Iterator[list[int]]:
    """Group ranges of the same length by the request that reads them; `starts` are ascending."""
    span = [starts[0]]
    for start in starts[1:]:
        if start - span[-1] - length > GAP_BYTES or start + length - span[0] > SPAN_BYTES:
            yield span
            span = []
        span.append(start)
    yield span


def _read_ranges(store: BlobStore, name: str, starts: list[int], length: int, digest: str | None = None) -> list[bytes]:
    try:
        return store.get_ranges(name, starts, length, digest)
    except FileNotFoundError:
        raise missing_blob_error(store, name) from None
