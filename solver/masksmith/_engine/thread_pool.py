"""A thread pool in which the calling thread processes items, too.

If the calling thread only waited, waking it after each panel would take more than a tenth of the time of a solve.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from typing import Generic, TypeVar

Item = TypeVar("Item")


class CallerRunsPool(Generic[Item]):
    """Calls a function once for every item, on one or more threads, until a call fails.

    Args:
        function: Called with each item.
        items: The items, in the order in which they are started.
    """

    def __init__(self, function: Callable[[Item], None], items: Sequence[Item]) -> None:
        self._function = function
        self._queue = enumerate(items)
        self._lock = Lock()
        self._stopped = False
        self._done: deque[Item] = deque()
        self._failures: dict[int, BaseException] = {}

    def run(self, threads: int) -> Iterator[Item]:
        """Process items on `threads` threads, the calling one included; yields each item after it is done.

        If the caller closes the iterator early, no further item is started.

        Raises:
            BaseException: The exception of the failed item, after the started items are done; no item is started after
                a failure. If several items fail, the first of them in the order of the items.
        """
        # An executor cannot have 0 threads; without calls, it starts none.
        with ThreadPoolExecutor(max(1, threads - 1), thread_name_prefix="masksmith") as pool:
            for _ in range(threads - 1):
                pool.submit(self._work)
            try:
                while self._step():
                    yield from self._take_done()
            finally:
                self._stopped = True
        yield from self._take_done()
        if self._failures:
            raise self._failures[min(self._failures)]

    def _work(self) -> None:
        while self._step():
            pass

    def _step(self) -> bool:
        """Process the next item; return False if there is none, the pool has stopped, or the item fails."""
        with self._lock:
            number, item = next(self._queue, (-1, None)) if not self._stopped else (-1, None)
        if item is None:
            return False
        try:
            self._function(item)
        except BaseException as error:  # noqa: BLE001 - raised again by run
            self._failures[number], self._stopped = error, True
            return False
        self._done.append(item)
        return True

    def _take_done(self) -> Iterator[Item]:
        while self._done:
            yield self._done.popleft()
