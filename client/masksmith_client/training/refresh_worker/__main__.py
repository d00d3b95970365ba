"""Main program of the refresh process: reads configuration and requests from stdin, and writes responses to stdout.

Only responses: what a library prints there is written to stderr.
"""

from __future__ import annotations

import logging
import os
import queue
import sys
import threading
from typing import BinaryIO

from .handler import RefreshHandler
from .messages import RefreshRequest, RefreshResponse
from .shared_memory import SharedMemory
from .sources import WorkerConfiguration

STDOUT, STDERR = 1, 2
NICENESS = 10
"""Added to the niceness of a refresh process that solves without a service, so that training has priority."""


def main() -> None:
    """Read requests until stdin ends, then exit; a second thread handles them, so that the end is noticed at once."""
    responses = _responses()
    # Responses report failures, so the client's warnings are not printed.
    logging.getLogger("masksmith_client").setLevel(logging.ERROR)
    # Bytes, since the encoding of the text streams depends on the environment (`PYTHONIOENCODING`).
    configuration = WorkerConfiguration.model_validate_json(sys.stdin.buffer.readline())
    refusal = None if configuration.cores is None else _use_cores(configuration.cores)
    if configuration.client is None:
        os.nice(NICENESS)
    requests: queue.SimpleQueue[RefreshRequest] = queue.SimpleQueue()
    threading.Thread(target=_handle_all, args=(configuration, refusal, requests, responses), daemon=True).start()
    for line in sys.stdin.buffer:
        requests.put(RefreshRequest.model_validate_json(line))
    # Exit without waiting for the request that is being handled, whose masks are no longer needed.
    os._exit(0)


def _responses() -> BinaryIO:
    """Return the pipe for responses, which was standard output, and make what is printed go to standard error."""
    responses = os.fdopen(os.dup(STDOUT), "wb")
    try:
        os.dup2(STDERR, STDOUT)
    except OSError:  # Standard error is closed.
        os.dup2(os.open(os.devnull, os.O_WRONLY), STDOUT)
    return responses


def _use_cores(cores: list[int]) -> str | None:
    """Restrict the process to these processors; if the system refuses that, return why."""
    try:
        os.sched_setaffinity(0, cores)
    except (OSError, OverflowError) as error:
        return f"the refresh process cannot run on the processors {cores} (cores of Refresh): {error}"
    return None


def _handle_all(
    configuration: WorkerConfiguration,
    refusal: str | None,
    requests: queue.SimpleQueue[RefreshRequest],
    responses: BinaryIO,
) -> None:
    """Respond to all requests; if there is a refusal, each response has it as its failure."""
    try:
        handler = RefreshHandler(configuration.create_source(), SharedMemory(configuration.slots, configuration.fd))
        while True:
            request = requests.get()
            if refusal is None:
                response = handler.handle(request)
            else:
                response = RefreshResponse(step=request.step, failure=refusal)
            responses.write(response.model_dump_json().encode() + b"\n")
            responses.flush()
    except BaseException:
        logging.getLogger("masksmith_client.training").exception("the refresh process failed")
        os._exit(1)


if __name__ == "__main__":
    main()
