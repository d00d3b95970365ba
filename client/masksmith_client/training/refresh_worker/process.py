"""A refresh worker in its own process, so that it does not compete with the training loop for the GIL.

Requests and responses are lines of JSON over pipes; values and masks are in memory that both processes share.
"""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import sys
import weakref
from collections.abc import Sequence

from masksmith_client._client import ClientConfiguration

from .messages import RefreshRequest, RefreshResponse
from .shared_memory import SharedMemory
from .sources import WorkerConfiguration

PIECE_BYTES = 2**16
GRACE_S = 2.0


class ProcessWorker:
    """Runs `python -m masksmith_client.training.refresh_worker`, and restarts it if it has ended.

    Args:
        client: The service that solves; None solves with the library.
        memory: Holds the layers' values and masks.
        cores: Processors that the process may use; None for those of this process.
    """

    handled_in = "a process"

    def __init__(self, client: ClientConfiguration | None, memory: SharedMemory, cores: Sequence[int] | None) -> None:
        self._configuration = WorkerConfiguration(
            client=client,
            slots=list(memory.slots.values()),
            fd=memory.fd,
            cores=None if cores is None else list(cores),
        )
        self._process: subprocess.Popen[bytes] | None = None
        self._finalizer: weakref.finalize[..., ProcessWorker] | None = None
        self._step = 0
        self._start_error = ""
        self._buffer = b""

    @property
    def pid(self) -> int | None:
        """The id of the process; None before the first request."""
        return None if self._process is None else self._process.pid

    def submit(self, request: RefreshRequest) -> None:
        """Send a request; a process that has ended is restarted first."""
        self._step = request.step
        if self._process is None or self._process.poll() is not None:
            self._launch()
        if self._process is not None:
            self._send(request.model_dump_json())

    def poll(self) -> RefreshResponse | None:
        """Return the response if it has arrived, else None; never blocks."""
        return self._receive(0.0)

    def wait(self) -> RefreshResponse:
        """Block until the response has arrived, and return it."""
        while (response := self._receive(None)) is None:
            pass
        return response

    def close(self) -> None:
        """Stop the process; the next request starts another."""
        if self._finalizer is not None:
            self._finalizer()
        self._process, self._start_error = None, "the refresh process was stopped by close()"

    def _launch(self) -> None:
        self.close()
        self._buffer = b""
        try:
            # In a session of its own, Ctrl-C does not signal the process: it ends when its stdin is closed.
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "masksmith_client.training.refresh_worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                pass_fds=[self._configuration.fd],
                start_new_session=True,
            )
        except OSError as error:
            # Training goes on if no process can be started; the next response has the error.
            self._process, self._start_error = None, f"the refresh process cannot be started: {error}"
            return
        self._finalizer = weakref.finalize(self, _stop, self._process)
        self._send(self._configuration.model_dump_json())

    def _send(self, line: str) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        # If the process has ended, `_receive` says so.
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(line.encode() + b"\n")
            self._process.stdin.flush()

    def _receive(self, timeout_s: float | None) -> RefreshResponse | None:
        if self._process is None:
            return RefreshResponse(step=self._step, failure=self._start_error)
        assert self._process.stdout is not None
        output = self._process.stdout.fileno()
        if not select.select([output], [], [], timeout_s)[0]:
            return None
        piece = os.read(output, PIECE_BYTES)
        if not piece:
            code = self._process.wait()
            return RefreshResponse(step=self._step, failure=f"the refresh process ended (exit code {code})")
        line, newline, rest = (self._buffer + piece).partition(b"\n")
        self._buffer = rest if newline else line
        return RefreshResponse.model_validate_json(line) if newline else None


def _stop(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None
    assert process.stdout is not None
    with contextlib.suppress(BrokenPipeError):
        process.stdin.close()
    try:
        process.wait(GRACE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    process.stdout.close()
