"""Upload tensors in parallel: hash each one, and send it only if the service does not have it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import partial

from masksmith_client._progress import Bar, ShowProgress
from masksmith_client.transport import calls
from masksmith_client.transport.session import ServiceSession

from .prepared_job import PreparedJob
from .streamed_tensor import StreamedTensor

PARALLEL_UPLOADS = 4
"""Maximum number of tensors that are hashed or sent at a time."""


class UploadTracker:
    """State shared by the parallel uploads of one job: the progress bar, and the digests that an upload has claimed."""

    def __init__(self, bar: Bar) -> None:
        self._bar = bar
        self._claimed: set[str] = set()
        self._sent_bytes: dict[str, int] = {}
        self._lock = threading.Lock()

    def claim(self, digest: str) -> bool:
        """Claim a digest for an upload; return False if another upload has claimed it.

        Equal tensors have the same digest, and only the upload that claims it sends its tensor.
        """
        with self._lock:
            is_first = digest not in self._claimed
            self._claimed.add(digest)
        return is_first

    def skip(self, tensor: StreamedTensor) -> None:
        """Advance the bar by the size of a tensor that need not be sent."""
        self._bar.advance(tensor.file_bytes)

    def body(self, tensor: StreamedTensor) -> Iterator[bytes]:
        """Yield the bytes of a tensor's file and advance the bar; a retry first moves the bar back."""
        self._bar.advance(-self._sent_bytes.pop(tensor.name, 0))
        for piece in tensor.pieces():
            self._bar.advance(len(piece))
            self._sent_bytes[tensor.name] = self._sent_bytes.get(tensor.name, 0) + len(piece)
            yield bytes(piece)


async def upload(session: ServiceSession, prepared: PreparedJob, *, progress: ShowProgress) -> list[str]:
    """Upload the tensors that the service lacks; return the digests of all, in the order of `prepared.uploads`."""
    with Bar("uploading", prepared.total_bytes, show=progress, in_bytes=True) as bar:
        return await session.gather(partial(_upload, UploadTracker(bar)), prepared.uploads, PARALLEL_UPLOADS)


async def _upload(tracker: UploadTracker, session: ServiceSession, tensor: StreamedTensor) -> str:
    digest = await session.run_blocking(tensor.digest)
    if not tracker.claim(digest) or await session.send(calls.has_tensor(digest)):
        tracker.skip(tensor)
    else:
        await session.send(calls.put_tensor(digest, lambda: tracker.body(tensor), tensor.file_bytes))
    return digest
