"""Uploading tensors, several at once: each is hashed, and sent only if the service lacks it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import partial

from masksmith_client._progress import Bar
from masksmith_client.transport import calls as calls
from masksmith_client.transport.session import Session

from .prepare import Submission
from .weights import Weight

PARALLEL = 4


class Tracker:
    """What all uploads of a submission share: the bar, and the digests that one of them takes care of."""

    def __init__(self, bar: Bar) -> None:
        self._bar = bar
        self._claimed: set[str] = set()
        self._sent: dict[str, int] = {}
        self._lock = threading.Lock()

    def claim(self, digest: str) -> bool:
        """Whether the caller is the first with this digest; tied weights share one."""
        with self._lock:
            first = digest not in self._claimed
            self._claimed.add(digest)
        return first

    def skip(self, weight: Weight) -> None:
        """Move the bar over a weight that is not sent."""
        self._bar.advance(weight.file_bytes)

    def body(self, weight: Weight) -> Iterator[bytes]:
        """Give a weight's file while moving the bar, which moves back first if an earlier attempt was cut."""
        self._bar.advance(-self._sent.pop(weight.name, 0))
        for piece in weight.pieces():
            self._bar.advance(len(piece))
            self._sent[weight.name] = self._sent.get(weight.name, 0) + len(piece)
            yield bytes(piece)


async def upload(session: Session, submission: Submission, *, progress: bool | None) -> list[str]:
    """Upload all of a submission that the service lacks; gives the digest of each weight."""
    with Bar("uploading", submission.total_bytes, show=progress, in_bytes=True) as bar:
        return await session.gather(partial(_upload, Tracker(bar)), submission.uploads, PARALLEL)


async def _upload(tracker: Tracker, session: Session, weight: Weight) -> str:
    digest = await session.block(weight.digest)
    if not tracker.claim(digest) or await session.send(calls.has_tensor(digest)):
        tracker.skip(weight)
    else:
        await session.send(calls.put_tensor(digest, lambda: tracker.body(weight), weight.file_bytes))
    return digest
