"""Starts and stops child processes; on Linux they get a signal when this process ends, and orphans are adopted."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from .logs import rotate_open

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
"""Options of Linux's prctl: get a signal when the parent ends, and become the parent of orphaned descendants."""
ROTATION_PAUSE_S = 60.0
"""Seconds from a failed attempt to rotate a log to the next attempt."""
TAIL_BYTES, TAIL_LINES = 4096, 15
"""Limits of the end of a log that `Child.log_tail` returns."""
SOCKET_START_S, SOCKET_MISSING_S = 30.0, 1.0
"""Seconds that a server's socket file may be missing before the server counts as unreachable.

The first number is for a server that is starting, the second for a file that existed and was deleted.
"""

_SIGNAL_NAMES = {number.value: number.name for number in signal.Signals}
"""Names by number; most real-time signals have none."""


@dataclass(frozen=True, slots=True)
class ProcessSpec:
    """How to start and stop a child process.

    Attributes:
        name: Name in messages and logs.
        command: Command line.
        environment: Environment variables.
        log: File for the child's output.
        grace_s: Seconds within which the child must stop after SIGTERM.
        death_signal: Signal that the child gets if this process ends without stopping it; Linux only.
        keep_open: File descriptors that the child inherits.
        socket: Unix socket that the child listens on. If the socket is deleted, the child runs on, but nothing can
            connect to it.
        before_start: Called before each start; raises `FailedError` if the child must not be started.
    """

    name: str
    command: Sequence[str]
    environment: dict[str, str]
    log: Path
    grace_s: float
    death_signal: signal.Signals = signal.SIGKILL
    keep_open: tuple[int, ...] = ()
    socket: Path | None = None
    before_start: Callable[[], None] | None = None


class Child:
    """A child process, which the constructor starts."""

    def __init__(self, spec: ProcessSpec) -> None:
        self.spec = spec
        self.started_at, self._rotate_at = time.monotonic(), 0.0
        self._has_listened, self._socket_seen_at = False, self.started_at
        if spec.before_start is not None:
            spec.before_start()
        with spec.log.open("ab") as log:
            self._log_start = log.tell()
            self._process = subprocess.Popen(
                spec.command,
                env=spec.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                pass_fds=spec.keep_open,
                preexec_fn=_preparation(spec.death_signal),
            )

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    def exit_reason(self) -> str | None:
        """Describe how the process ended; None while it runs."""
        code = self._process.poll()
        if code is None:
            return None
        return (
            f"was killed by {_SIGNAL_NAMES.get(-code, f'signal {-code}')}" if code < 0 else f"exited with code {code}"
        )

    def failure(self) -> str | None:
        """Describe how the process ended, or why nothing can connect to its socket; else None."""
        if (reason := self.exit_reason()) is not None or self.spec.socket is None:
            return reason
        now = time.monotonic()
        if self.spec.socket.exists():
            self._has_listened, self._socket_seen_at = True, now
        if now - self._socket_seen_at < (SOCKET_MISSING_S if self._has_listened else SOCKET_START_S):
            return None
        return f"cannot be reached, {self.spec.socket} {'was deleted' if self._has_listened else 'does not exist'}"

    def terminate(self) -> None:
        """Send SIGTERM to the process, if it is running."""
        if self._process.poll() is None:
            self._process.terminate()

    def wait_or_kill(self, deadline: float) -> bool:
        """Wait until the process stops; kill it at `deadline` (of `time.monotonic`). Return whether it was in time."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(max(0.0, deadline - time.monotonic()))
            return True
        self._process.kill()
        self._process.wait()
        return False

    def rotate_log(self) -> None:
        """Rotate the log file if it has become large; for `ROTATION_PAUSE_S` after a failure, do nothing."""
        if time.monotonic() < self._rotate_at:
            return
        try:
            if rotate_open(self.spec.log):
                self._log_start = 0
        except OSError:
            self._rotate_at = time.monotonic() + ROTATION_PAUSE_S

    def log_tail(self) -> str:
        """Return the last lines that the process logged in this run, at most `TAIL_LINES`.

        If the log cannot be read, for example because it was deleted, the only line says so.
        """
        try:
            with self.spec.log.open("rb") as log:
                end = log.seek(0, os.SEEK_END)
                log.seek(max(self._log_start, end - TAIL_BYTES))
                lines = log.read().decode(errors="replace").splitlines()
        except OSError as error:
            lines = [f"(the log cannot be read: {error.strerror or error})"]
        return "\n".join(f"  {self.spec.name} | {line}" for line in lines[-TAIL_LINES:])


def adopt_orphans() -> None:
    """Make this process the parent of orphaned grandchildren, so that it can stop them; Linux only."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def children_of(parent: int) -> set[int]:
    """Ids of the children of a process, also of those that have ended and are not reaped; empty without /proc."""
    children = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            # The process's name in parentheses may be any bytes; the fields after it are state and parent.
            if int(stat.read_bytes().rpartition(b")")[2].split()[1]) == parent:
                children.add(int(stat.parent.name))
    return children


def kill_all(pids: set[int]) -> None:
    """Kill and reap adopted processes."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, 0)


def _preparation(death_signal: signal.Signals) -> Callable[[], None]:
    """Return what a child runs before its command: it blocks SIGINT, and on Linux requests `death_signal`."""
    parent = os.getpid()
    prctl = ctypes.CDLL(None).prctl if sys.platform == "linux" else None

    def before_exec() -> None:
        # The terminal sends SIGINT of Ctrl-C to the whole process group. Children block it, so that only the parent
        # handles it and stops the children in order.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        if prctl is not None:
            prctl(PR_SET_PDEATHSIG, int(death_signal), 0, 0, 0)
            if os.getppid() != parent:  # The parent ended before the call of prctl.
                os._exit(1)

    return before_exec
