"""Streams the masked weights of a job, with zeros in the entries that the masks drop, a few rows at a time."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from masksmith.layouts import ITEM_BYTES
from masksmith_service.auth.principal import Principal
from masksmith_service.errors import RequestError
from masksmith_service.references.access import LocatedPath, find_readable
from masksmith_state.blobs.names import result_name, upload_name
from masksmith_state.blobs.store import BlobStore
from masksmith_state.jobs.model import JobRecord
from masksmith_state.jobs.records import JobRecords
from masksmith_state.jobs.reports import ShardReport
from masksmith_state.jobs.shards import PlannedTensor, Shard
from masksmith_state.roots.roots import Roots
from masksmith_wire import masks
from masksmith_wire.errors import Code
from masksmith_wire.headers import build_header

from .missing_blobs import check_exist
from .results import VERIFIED_BYTES, FinishedTensors, finished_tensors

BAND_BYTES = 2**20
"""Maximum bytes of a weight that are read and sent at once; a single row may have more."""


@dataclass(frozen=True)
class PrunedFile:
    """A safetensors file of the masked weights, each in the dtype and shape of the weight.

    Attributes:
        job: The job.
        tensors: The tensors whose masks are complete, with their shards and reports.
        files: The files that weights in roots are read from, by location.
    """

    job: JobRecord
    tensors: FinishedTensors
    files: Mapping[str, LocatedPath]

    @property
    def header(self) -> bytes:
        """The first bytes of the file: the header's length and the header."""
        return build_header({tensor.name: (tensor.dtype, tensor.shape) for tensor, _ in self.tensors})

    @property
    def size(self) -> int:
        """Size of the file in bytes."""
        return len(self.header) + sum(tensor.shape[0] * tensor.row_bytes for tensor, _ in self.tensors)

    def check(self, store: BlobStore) -> None:
        """Check, before the first byte is sent, that the masks and weights of `tensors` exist and are not damaged.

        Of a file in a root, only the version is checked. If masks and uploads have more than `VERIFIED_BYTES` together,
        damage is found only while they are read; the connection is then closed at the damaged piece.

        Raises:
            RequestError: If no tensor has a mask, or a mask or an upload is missing.
            DamagedBlobError: If a mask or an upload is damaged.
            ChangedSourceError: If a file in a root has changed since the job was submitted.
        """
        if not self.tensors:
            detail = f"no tensor of job {self.job.id} has a mask; its state is {self.job.state}"
            raise RequestError(Code.RESULT_NOT_FOUND, detail)
        sources = {tensor.source.location: tensor.source for tensor, _ in self.tensors if tensor.source is not None}
        for location, source in sources.items():
            self.files[location].check_version(source.version)
        digests: dict[str, str | None] = {
            upload_name(tensor.digest): tensor.digest for tensor, _ in self.tensors if tensor.source is None
        }
        reports = (report for _, parts in self.tensors for _, report in parts)
        digests |= {result_name(str(report.result)): report.mask_digest for report in reports}
        check_exist(store, digests)
        if sum(store.size(name) or 0 for name in digests) <= VERIFIED_BYTES:
            for name, digest in digests.items():
                store.verify(name, digest)

    def stream(self, store: BlobStore) -> Iterator[bytes]:
        """Yield the file's bytes: the header, then the tensors."""
        yield self.header
        for tensor, parts in self.tensors:
            for shard, report in parts:
                yield from self._masked_rows(tensor, shard, report, store)

    def _masked_rows(
        self, tensor: PlannedTensor, shard: Shard, report: ShardReport, store: BlobStore
    ) -> Iterator[bytes]:
        """Yield the masked weights of a shard of a tensor, band by band; `report` is the report of its mask."""
        mask_name = result_name(str(report.result))
        row_shape, item_bytes = tuple(tensor.shape[1:]), ITEM_BYTES[tensor.dtype]
        packed_row_bytes = masks.packed_bytes((1, *row_shape))
        band_rows = max(1, BAND_BYTES // tensor.row_bytes)
        for row in range(shard.first, shard.last, band_rows):
            rows = min(band_rows, shard.last - row)
            start = tensor.start + row * tensor.row_bytes
            weight = self._read_weight(tensor, start, start + rows * tensor.row_bytes, store)
            mask_start, mask_stop = ((at - shard.first) * packed_row_bytes for at in (row, row + rows))
            packed = store.get_range(mask_name, mask_start, mask_stop, report.mask_digest)
            # All bytes of a dropped entry are multiplied by 0, whatever the dtype.
            mask = masks.unpack(np.frombuffer(packed, np.uint8), (rows, *row_shape)).reshape(-1, 1)
            entries = np.frombuffer(weight, np.uint8).reshape(rows * math.prod(row_shape), item_bytes)
            yield (entries * mask).tobytes()

    def _read_weight(self, tensor: PlannedTensor, start: int, stop: int, store: BlobStore) -> bytes:
        """Read the bytes from `start` to `stop` (exclusive) of the upload, or of the file, that has the tensor."""
        if tensor.source is None:
            return store.get_range(upload_name(tensor.digest), start, stop)
        file = self.files[tensor.source.location]
        return file.root.read(file.path, start, stop, tensor.source.version)


def pruned_file(record: JobRecord, records: JobRecords, roots: Roots, principal: Principal) -> PrunedFile:
    """Return the file of a job's masked weights; weights without a complete mask are left out.

    Raises:
        RequestError: If the job was deleted; if the principal may not read the root of a weight; or if that root is not
            in the settings any more.
        NoMasksError: If the job is a benchmark.
    """
    tensors = finished_tensors(record, records)
    locations = {tensor.source.location for tensor, _ in tensors if tensor.source is not None}
    files = {location: find_readable(roots, principal, location) for location in locations}
    return PrunedFile(record, tensors, files)
