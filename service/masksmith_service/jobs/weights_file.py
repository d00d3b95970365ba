"""Updated weights of a job, streamed shard after shard as one safetensors file."""

from __future__ import annotations

from collections.abc import AsyncIterator

from masksmith_service.errors import RequestError
from masksmith_state.blobs.store import BlobStore, weights_name
from masksmith_state.jobs.model import JobRecord, ShardReport
from masksmith_state.jobs.shards import Shard
from masksmith_wire.errors import Code
from masksmith_wire.headers import build_header

from .masks_file import finished


class WeightsFile:
    """The weights file of a job: every tensor whose shards all succeeded, in its own dtype and shape.

    Args:
        record: The job.
        shards: All its shards.
        reports: Those that are done.

    Raises:
        RequestError: If the job updates no weights.
    """

    def __init__(self, record: JobRecord, shards: dict[int, Shard], reports: dict[int, ShardReport]) -> None:
        if record.plan.options.update is None:
            detail = f"job {record.id} updates no weights; submit it with update=reconstruct or update=admm"
            raise RequestError(Code.RESULT_NOT_FOUND, detail)
        self._job = record
        self._parts: list[tuple[str, int]] = []
        kept: dict[str, tuple[str, list[int]]] = {}
        for tensor, parts in finished(record, shards, reports):
            kept[tensor.name] = (tensor.dtype, tensor.shape)
            self._parts += [
                (weights_name(str(report.result)), (shard.last - shard.first) * tensor.row_bytes)
                for shard, report in parts
            ]
        self._header = build_header(kept)

    @property
    def size(self) -> int:
        """Size of the file."""
        return len(self._header) + sum(size for _, size in self._parts)

    def check(self, store: BlobStore) -> None:
        """Make sure that every part is there before the first byte is sent.

        Raises:
            RequestError: If there are no weights at all, or a result has expired.
        """
        if not self._parts:
            detail = f"no tensor of job {self._job.id} has updated weights; its state is {self._job.state}"
            raise RequestError(Code.RESULT_NOT_FOUND, detail)
        if any(store.size(name) != size for name, size in self._parts):
            raise RequestError(Code.RESULT_NOT_FOUND, "the weights of this job have expired; submit it again")

    async def stream(self, store: BlobStore) -> AsyncIterator[bytes]:
        """Yield the file."""
        yield self._header
        for name, _ in self._parts:
            async for piece in store.stream(name):
                yield piece
