"""The refresh process: reads requests, writes responses, and ends with its input."""

from __future__ import annotations

import logging
import os
import queue
import sys
import threading

from .handler import Handler
from .messages import RefreshRequest
from .shared_memory import Memory
from .sources import Start

NICENESS = 10
"""The library solves on all cores; training goes first."""


def main() -> None:
    """Read requests until the input ends, which a thread that solves them would not notice."""
    # Failures are reported in responses.
    logging.getLogger("masksmith_client").setLevel(logging.ERROR)
    start = Start.model_validate_json(sys.stdin.readline())
    if start.cores is not None:
        os.sched_setaffinity(0, start.cores)
    if start.client is None:
        os.nice(NICENESS)
    requests: queue.SimpleQueue[RefreshRequest] = queue.SimpleQueue()
    threading.Thread(target=_handle_all, args=(start, requests), daemon=True).start()
    for line in sys.stdin:
        requests.put(RefreshRequest.model_validate_json(line))
    # Without waiting for an upload that is under way: its masks are of no use any more.
    os._exit(0)


def _handle_all(start: Start, requests: queue.SimpleQueue[RefreshRequest]) -> None:
    try:
        handler = Handler(start.source(), Memory(start.slots, start.fd))
        while True:
            print(handler.handle(requests.get()).model_dump_json(), flush=True)  # noqa: T201 - read by the parent
    except BaseException:
        logging.getLogger("masksmith_client.training").exception("the refresh process failed")
        os._exit(1)


if __name__ == "__main__":
    main()
