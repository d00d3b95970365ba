"""Sending tensors, several at once: hash, ask, send what is missing."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait

from masksmith_client._progress import Bar
from masksmith_client.transport import calls as calls
from masksmith_client.transport.connection import Connection, StoppedError

from .prepare import Submission
from .weights import Weight

PARALLEL = 4


class Tracker:
    """What all uploads of a submission share: the bar, which digests are taken care of, and whether to stop."""

    def __init__(self, bar: Bar) -> None:
        self._bar = bar
        self._claimed: set[str] = set()
        self._sent: dict[str, int] = {}
        self._lock = threading.Lock()
        self.stopped = threading.Event()

    def claim(self, digest: str) -> bool:
        """Whether the caller is the first to come with this digest; tied weights share one."""
        with self._lock:
            fresh = digest not in self._claimed
            self._claimed.add(digest)
        return fresh

    def skip(self, weight: Weight) -> None:
        """Note that a weight need not travel."""
        self._bar.advance(weight.file_bytes)

    def body(self, weight: Weight) -> Iterator[bytes]:
        """Give a weight's file while moving the bar, which goes back first if an earlier attempt was cut."""
        self._bar.advance(-self._sent.pop(weight.name, 0))
        for piece in weight.pieces():
            if self.stopped.is_set():
                raise StoppedError
            self._bar.advance(len(piece))
            self._sent[weight.name] = self._sent.get(weight.name, 0) + len(piece)
            yield bytes(piece)


def upload(connection: Connection, submission: Submission, *, progress: bool | None) -> list[str]:
    """Bring a submission's uploads to the service; gives the digest of each."""
    with Bar("uploading", submission.total_bytes, show=progress, in_bytes=True) as bar:
        tracker = Tracker(bar)
        pool = ThreadPoolExecutor(PARALLEL, thread_name_prefix="masksmith-upload")
        try:
            futures = [pool.submit(_upload_one, connection, weight, tracker) for weight in submission.uploads]
            done, _ = wait(futures, return_when=FIRST_EXCEPTION)
            _raise_first(done)
            return [future.result() for future in futures]
        finally:
            tracker.stopped.set()
            pool.shutdown(cancel_futures=True)


def _upload_one(connection: Connection, weight: Weight, tracker: Tracker) -> str:
    digest = weight.digest()
    if tracker.stopped.is_set():
        raise StoppedError
    if not tracker.claim(digest) or connection.send(calls.has_tensor(digest), tracker.stopped):
        tracker.skip(weight)
    else:
        connection.send(calls.put_tensor(digest, lambda: tracker.body(weight), weight.file_bytes), tracker.stopped)
    return digest


def _raise_first(done: set[Future[str]]) -> None:
    errors = [error for future in done if (error := future.exception()) is not None]
    for error in errors:
        if not isinstance(error, StoppedError):
            raise error
