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
from collections.abc import Collection

from masksmith_client._client import ClientConfiguration

from .messages import RefreshRequest, RefreshResponse
from .shared_memory import SharedMemory
from .sources import WorkerConfiguration

PIECE_BYTES = 2**16
"""Maximum size of one read of a response."""
GRACE_S = 2.0
"""Seconds in which the process must end after its stdin is closed, before it is killed."""


class ProcessWorker:
    """Runs `python -m masksmith_client.training.refresh_worker`, and restarts it at the next request if it has ended.

    Args:
        client: Configuration of the client of the service that solves; None solves with the library.
        memory: Holds the layers' values and masks.
        cores: Processors that the process may use; None for those of this process.
    """

    handled_in = "a process"

    def __init__(self, client: ClientConfiguration | None, memory: SharedMemory, cores: Collection[int] | None) -> None:
        self._configuration = WorkerConfiguration(
            client=client,
            slots=list(memory.slots.values()),
            fd=memory.fd,
            cores=None if cores is None else list(cores),
        )
        self._process: subprocess.Popen[bytes] | None = None
        self._finalizer: weakref.finalize[..., ProcessWorker] | None = None
        self._step = 0
        self._reason_not_running = ""
        self._buffer = b""

    @property
    def pid(self) -> int | None:
        """The id of the process; None before the first request, and after `close` or a failed start."""
        return None if self._process is None else self._process.pid

    def submit(self, request: RefreshRequest) -> None:
        """Send a request; the process is started first if it does not run.

        If it cannot be started, or ends, the response has the failure.
        """
        self._step = request.step
        if self._process is None or self._process.poll() is not None:
            self._launch()
        if self._process is not None:
            self._send(request.model_dump_json())

    def poll(self) -> RefreshResponse | None:
        """Return the response, or one with the failure if the process does not run; None if neither is there yet.

        Never waits for a response.
        """
        return self._receive(0.0)

    def wait(self) -> RefreshResponse:
        """Block until the response has arrived, and return it, or one with the failure if the process does not run."""
        while (response := self._receive(None)) is None:
            pass
        return response

    def close(self) -> None:
        """Stop the process; the next request starts another."""
        if self._finalizer is not None:
            self._finalizer()
        self._process, self._reason_not_running = None, "the refresh process was stopped by close()"

    def _launch(self) -> None:
        self.close()
        self._buffer = b""
        try:
            # The process has a session of its own, so that Ctrl-C does not signal it; it ends when its stdin is closed.
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "masksmith_client.training.refresh_worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                pass_fds=[self._configuration.fd],
                start_new_session=True,
            )
        except OSError as error:
            # Training goes on if no process can be started; the next response has the error.
            self._process = None
            self._reason_not_running = f"the refresh process cannot be started: {error}"
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
        """Read once, within `timeout_s` (None: without a limit); return the response, or None if it is not complete."""
        if self._process is None:
            return RefreshResponse(step=self._step, failure=self._reason_not_running)
        assert self._process.stdout is not None
        output = self._process.stdout.fileno()
        if not _is_readable(output, timeout_s):
            return None
        piece = os.read(output, PIECE_BYTES)
        if not piece:
            code = self._process.wait()
            return RefreshResponse(step=self._step, failure=f"the refresh process ended (exit code {code})")
        line, newline, rest = (self._buffer + piece).partition(b"\n")
        self._buffer = rest if newline else line
        return RefreshResponse.model_validate_json(line) if newline else None


def _is_readable(fd: int, timeout_s: float | None) -> bool:
    """Whether a read of a pipe returns at once, now or within `timeout_s` (None: without a limit)."""
    # Not `select.select`: it fails for file descriptors from 1024 on, which large data loaders reach.
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(None if timeout_s is None else 1000 * timeout_s))


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Close the process's stdin, so that it ends; kill it after `GRACE_S`."""
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
