"""Supervises the processes of an installation: restarts them when they fail, and stops them in order.

All methods of a `Supervisor` must be called in one thread. A child asks the kernel for a signal at its parent's death
(PR_SET_PDEATHSIG); the kernel sends it when the thread that started the child ends, even if the parent process goes on.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from .errors import FailedError
from .processes import Child, ProcessSpec, adopt_orphans, children_of, kill_all

POLL_S = 0.2
"""Seconds between two checks whether processes have ended."""
MIN_RESTART_DELAY_S = 0.5
MAX_RESTART_DELAY_S = 30.0
MAX_DOUBLINGS = 10
"""Limit of the doublings of the restart delay; without it, the power of 2 would overflow after many failures."""
HEALTHY_AFTER_S = 60.0
"""Seconds after which a process counts as healthy: if it fails later, the restart delay begins at its minimum again."""
SHORT_GRACE_S = 1.0
"""Seconds to which a further stop signal shortens the rest of a grace period."""
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class ProcessFailedError(FailedError):
    """A process ended, or could not be reached, before all processes were ready."""


class _SupervisedProcess:
    """A process that the constructor starts, and the time when it may be restarted.

    Attributes:
        spec: How to start and stop the process.
        child: The process, which may have ended; None while it waits for its restart, after `restart_failed` has found
            that it failed.
        failure_count: Number of failures since the last healthy run; the restart delay is computed from it.
        restart_at: Time of `time.monotonic` from which on the process may be restarted.
    """

    def __init__(self, spec: ProcessSpec) -> None:
        self.spec = spec
        self.child: Child | None = Child(spec)
        self.failure_count = 0
        self.restart_at = 0.0


class Supervisor:
    """Runs processes. On Linux, the constructor makes this process the parent of their orphaned descendants.

    Within the context of `handling_signals`, stop signals set `stopping` instead of ending this process.

    Args:
        report: Prints a message for the user.
    """

    def __init__(self, report: Callable[[str], None]) -> None:
        self._report = report
        self._processes: list[_SupervisedProcess] = []
        self._stop_signal_count = 0
        adopt_orphans()
        self._earlier_children = children_of(os.getpid())

    @property
    def stopping(self) -> bool:
        """Whether a stop signal has arrived within `handling_signals`."""
        return self._stop_signal_count > 0

    @contextmanager
    def handling_signals(self) -> Iterator[None]:
        """Handle stop signals in the block: the first one sets `stopping`, a further one shortens one grace period."""
        # SIGHUP stays ignored under nohup. SIGINT is handled even if it is ignored at the start, because shells start
        # background jobs with SIGINT ignored.
        handled_signals = [number for number in STOP_SIGNALS if not _is_ignored_hangup(number)]
        previous_handlers = {number: signal.signal(number, self._on_signal) for number in handled_signals}
        try:
            yield
        finally:
            for number, handler in previous_handlers.items():
                signal.signal(number, handler)

    def start(self, spec: ProcessSpec) -> None:
        """Start a process, which `restart_failed` restarts from now on."""
        self._processes.append(_SupervisedProcess(spec))

    def check(self) -> None:
        """Check that no process has failed during the start-up.

        Raises:
            ProcessFailedError: If one has; the message has the end of its log.
        """
        for process in self._processes:
            if process.child is not None and (reason := process.child.failure()) is not None:
                raise ProcessFailedError(
                    f"{process.spec.name} {reason}; {process.spec.log} ends with\n{process.child.log_tail()}"
                )

    def restart_failed(self) -> None:
        """Stop processes that cannot be reached; restart these, and ended ones, each after its own restart delay.

        A call does not wait for the delays: calls must be repeated. If a process cannot be started, for example because
        memory is short, it is tried again after a further delay. After a stop signal, a call does nothing.

        Raises:
            FailedError: If a process must not be started again; see `ProcessSpec.before_start`.
        """
        if self.stopping:
            return
        now = time.monotonic()
        for process in self._processes:
            if process.child is not None and (reason := process.child.failure()) is not None:
                self._stop_and_schedule_restart(process, process.child, reason, now)
            if process.child is None and now >= process.restart_at:
                self._restart(process, now)

    def rotate_logs(self) -> None:
        """Rotate the log files that have become large."""
        for process in self._processes:
            if process.child is not None:
                process.child.rotate_log()

    def wait(self) -> None:
        """Sleep for `POLL_S`, the time between two calls of `check` or `restart_failed`."""
        time.sleep(POLL_S)

    def stop(self) -> None:
        """Stop all processes, and kill their orphaned descendants.

        Processes with the same grace period are stopped together, as a group. The groups are stopped in the reverse of
        the order in which their last processes were started.
        """
        for group in self._groups():
            self._stop_group(group)
        self._processes.clear()
        kill_all(self._orphans())

    def _groups(self) -> list[list[Child]]:
        """Processes that do not wait for a restart, in groups of equal grace periods, in the order of stopping."""
        groups: dict[float, list[Child]] = {}
        for process in reversed(self._processes):
            if process.child is not None:
                groups.setdefault(process.spec.grace_s, []).append(process.child)
        return list(groups.values())

    def _stop_group(self, group: list[Child]) -> None:
        for child in group:
            child.terminate()
        deadline = time.monotonic() + group[0].spec.grace_s
        while any(child.exit_reason() is None for child in group) and time.monotonic() < deadline:
            if self._stop_signal_count > 1:
                deadline = min(deadline, time.monotonic() + SHORT_GRACE_S)
                self._stop_signal_count = 1  # This signal does not shorten the grace period of the next group.
            time.sleep(0.05)
        for child in group:
            if not child.wait_or_kill(deadline):
                self._report(
                    f"{child.spec.name} took too long to stop and was killed; its unfinished work will be redone"
                )

    def _stop_and_schedule_restart(self, process: _SupervisedProcess, child: Child, reason: str, now: float) -> None:
        if now - child.started_at > HEALTHY_AFTER_S:
            process.failure_count = 0
        self._schedule_restart(process, reason, now)
        child.terminate()
        child.wait_or_kill(time.monotonic() + process.spec.grace_s)
        process.child = None
        kill_all(self._orphans())

    def _restart(self, process: _SupervisedProcess, now: float) -> None:
        try:
            process.child = Child(process.spec)
        except OSError as error:
            self._schedule_restart(process, f"cannot be started ({error.strerror or error})", now)

    def _schedule_restart(self, process: _SupervisedProcess, reason: str, now: float) -> None:
        """Report why a process is not running, and set the time of its restart."""
        delay_s = min(MIN_RESTART_DELAY_S * 2.0 ** min(process.failure_count, MAX_DOUBLINGS), MAX_RESTART_DELAY_S)
        self._report(f"{process.spec.name} {reason}; starting it again in {delay_s:g} s (log: {process.spec.log})")
        process.failure_count += 1
        process.restart_at = now + delay_s

    def _orphans(self) -> set[int]:
        """Ids of adopted processes: descendants of processes that have ended."""
        running = {process.child.pid for process in self._processes if process.child is not None}
        return children_of(os.getpid()) - running - self._earlier_children

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._stop_signal_count += 1


def _is_ignored_hangup(number: signal.Signals) -> bool:
    return number == signal.SIGHUP and signal.getsignal(number) is signal.SIG_IGN
