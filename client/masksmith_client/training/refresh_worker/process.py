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
        # What the pipe to the process has not taken yet, and the beginning of a response that is not complete.
        self._unsent = b""
        self._buffer = b""

    @property
    def pid(self) -> int | None:
        """The id of the process; None before the first request, and after `close` or a failed start."""
        return None if self._process is None else self._process.pid

    def submit(self, request: RefreshRequest) -> None:
        """Send a request, without waiting; the process is started first if it does not run.

        A pipe takes 64 KiB, and a process that is starting reads none; later calls of `poll` or `wait` send the rest.
        If the process cannot be started, or ends, the response has the failure.
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
        self._unsent = self._buffer = b""
        try:
            # The process has a session of its own, so that Ctrl-C does not signal it; it ends when its stdin is closed.
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "masksmith_client.training.refresh_worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                bufsize=0,
                pass_fds=[self._configuration.fd],
                start_new_session=True,
            )
        except OSError as error:
            # Training goes on if no process can be started; the next response has the error.
            self._process = None
            self._reason_not_running = f"the refresh process cannot be started: {error}"
            return
        self._finalizer = weakref.finalize(self, _stop, self._process)
        assert self._process.stdin is not None
        os.set_blocking(self._process.stdin.fileno(), False)
        self._send(self._configuration.model_dump_json())

    def _send(self, line: str) -> None:
        self._unsent += line.encode() + b"\n"
        self._flush()

    def _flush(self) -> None:
        """Write as much as the pipe takes now."""
        assert self._process is not None
        assert self._process.stdin is not None
        try:
            while self._unsent:
                self._unsent = self._unsent[os.write(self._process.stdin.fileno(), self._unsent) :]
        except BlockingIOError:
            pass
        except BrokenPipeError:  # The process has ended, which `_receive` says.
            self._unsent = b""

    def _receive(self, timeout_s: float | None) -> RefreshResponse | None:
        """Read what has arrived; if that is nothing, wait `timeout_s` for it (None: without a limit).

        Returns:
            The response; None if it is not complete.
        """
        if self._process is None:
            return RefreshResponse(step=self._step, failure=self._reason_not_running)
        assert self._process.stdout is not None
        self._flush()
        while self._is_readable(timeout_s):
            timeout_s = 0.0
            piece = os.read(self._process.stdout.fileno(), PIECE_BYTES)
            if not piece:
                code = self._process.wait()
                return RefreshResponse(step=self._step, failure=f"the refresh process ended (exit code {code})")
            line, newline, rest = (self._buffer + piece).partition(b"\n")
            self._buffer = rest if newline else line
            if newline:
                return RefreshResponse.model_validate_json(line)
        return None

    def _is_readable(self, timeout_s: float | None) -> bool:
        """Wait until the process can be read from, or takes more of what is unsent; return whether it can be read from.

        Args:
            timeout_s: Maximum time of the wait; None: without a limit.
        """
        assert self._process is not None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        # Not `select.select`: it fails for file descriptors from 1024 on, which large data loaders reach.
        poll = select.poll()
        poll.register(self._process.stdout, select.POLLIN)
        if self._unsent:
            poll.register(self._process.stdin, select.POLLOUT)
        ready = poll.poll(None if timeout_s is None else 1000 * timeout_s)
        return any(fd == self._process.stdout.fileno() for fd, _ in ready)


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
