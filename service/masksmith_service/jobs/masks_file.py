"""Results: the packed masks of a job's shards, streamed one after the other as one safetensors file."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Iterator, Mapping

import numpy as np

from masksmith_service.errors import RequestError
from masksmith_state.blobs.store import BlobStore, result_name
from masksmith_state.jobs.model import JobRecord, ShardReport
from masksmith_state.jobs.shards import PlannedTensor, Shard, shards_by_tensor
from masksmith_wire import masks
from masksmith_wire.errors import Code
from masksmith_wire.masks import MaskInfo


def finished(
    record: JobRecord, shards: Mapping[int, Shard], reports: Mapping[int, ShardReport]
) -> Iterator[tuple[PlannedTensor, list[tuple[Shard, ShardReport]]]]:
    """Give the tensors whose shards all succeeded, with each shard and its report."""
    tensors = record.plan.tensors
    for tensor, mine in zip(tensors, shards_by_tensor(tensors, shards), strict=True):
        if all(index in reports and reports[index].result is not None for index in mine):
            yield tensor, [(shards[index], reports[index]) for index in mine]


class MasksFile:
    """The masks file of a job: every tensor whose shards all succeeded.

    Args:
        record: The job.
        shards: All its shards.
        reports: Those that are done.
        as_bool: One byte an entry instead of one bit.
    """

    def __init__(
        self, record: JobRecord, shards: dict[int, Shard], reports: dict[int, ShardReport], *, as_bool: bool
    ) -> None:
        self._as_bool = as_bool
        self._parts: list[tuple[str, tuple[int, ...]]] = []
        infos: dict[str, MaskInfo] = {}
        options = record.plan.options
        for tensor, parts in finished(record, shards, reports):
            pattern = parts[0][1].pattern or options.pattern
            infos[tensor.name] = MaskInfo(shape=tensor.shape, pattern=pattern, ragged=options.ragged, axis=options.axis)
            for shard, report in parts:
                self._parts.append((result_name(str(report.result)), (shard.last - shard.first, *tensor.shape[1:])))
        self._header = masks.file_header(infos, as_bool=as_bool)
        self._job = record

    @property
    def size(self) -> int:
        """Size of the file."""
        return len(self._header) + sum(self._size(shape, as_bool=self._as_bool) for _, shape in self._parts)

    def check(self, store: BlobStore) -> None:
        """Make sure that every part is there before the first byte is sent.

        Raises:
            RequestError: If there is no mask at all, or a result has expired.
        """
        if not self._parts:
            detail = f"no tensor of job {self._job.id} has a mask; its state is {self._job.state}"
            raise RequestError(Code.RESULT_NOT_FOUND, detail)
        for name, shape in self._parts:
            if store.size(name) != self._size(shape, as_bool=False):
                raise RequestError(Code.RESULT_NOT_FOUND, "the masks of this job have expired; submit it again")

    async def stream(self, store: BlobStore) -> AsyncIterator[bytes]:
        """Yield the file."""
        yield self._header
        for name, shape in self._parts:
            if self._as_bool:
                packed = b"".join([piece async for piece in store.stream(name)])
                yield masks.unpack(np.frombuffer(packed, np.uint8), shape).tobytes()
            else:
                async for piece in store.stream(name):
                    yield piece

    @staticmethod
    def _size(shape: tuple[int, ...], *, as_bool: bool) -> int:
        return math.prod(shape) if as_bool else math.prod(shape[:-1]) * masks.packed_width(shape)
