"""Keeps the parts of an installation running, and stops them in order.

All of it runs in one thread, because a child's death signal is sent when the thread that started it ends.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from .errors import FailedError
from .processes import Child, Part, adopt_orphans, children_of, kill_all

POLL_S = 0.2
FIRST_DELAY_S = 0.5
LONGEST_DELAY_S = 30.0
HEALTHY_AFTER_S = 60.0
HURRIED_GRACE_S = 1.0
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class PartFailedError(FailedError):
    """A part ended before all of them were ready."""


class _Slot:
    """A part, its child, and when to start the next one."""

    def __init__(self, part: Part) -> None:
        self.part = part
        self.child: Child | None = Child(part)
        self.failures = 0
        self.restart_at = 0.0


class Supervisor:
    """Runs parts; use `signals` around everything.

    Args:
        report: Prints a line for the user.
    """

    def __init__(self, report: Callable[[str], None]) -> None:
        self._report = report
        self._slots: list[_Slot] = []
        self._stop_signals = 0
        adopt_orphans()
        self._earlier_children = children_of(os.getpid())

    @property
    def stopping(self) -> bool:
        """Whether a stop signal has arrived."""
        return self._stop_signals > 0

    @contextmanager
    def signals(self) -> Iterator[None]:
        """Handle the stop signals meanwhile: the first one stops, a second one shortens the grace."""
        # SIGHUP stays ignored under nohup; SIGINT, which shells ignore in background jobs, is handled all the same.
        handled = [number for number in STOP_SIGNALS if not _is_nohup(number)]
        before = {number: signal.signal(number, self._on_signal) for number in handled}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def start(self, part: Part) -> None:
        """Start a part and keep it running from now on."""
        self._slots.append(_Slot(part))

    def check(self) -> None:
        """Check the parts during the start, when one that ends is a failure of all.

        Raises:
            PartFailedError: With the end of its log.
        """
        for slot in self._slots:
            if slot.child is not None and (reason := slot.child.exit_reason()) is not None:
                raise PartFailedError(f"{slot.part.name} {reason}; {slot.part.log} ends with\n{slot.child.log_tail()}")

    def restart_ended(self) -> None:
        """Start parts again that have ended, each time after a longer delay."""
        now = time.monotonic()
        for slot in self._slots:
            if slot.child is not None and (reason := slot.child.exit_reason()) is not None and not self.stopping:
                self._schedule_restart(slot, slot.child, reason, now)
            if slot.child is None and now >= slot.restart_at:
                slot.child = Child(slot.part)

    def wait(self) -> None:
        """Sleep until the next check; a signal is seen right after."""
        time.sleep(POLL_S)

    def stop(self) -> None:
        """Stop all parts, last started first, those of one kind at the same time."""
        for group in self._groups():
            self._stop_group(group)
        self._slots.clear()
        kill_all(self._orphans())

    def _groups(self) -> list[list[Child]]:
        groups: dict[float, list[Child]] = {}
        for slot in reversed(self._slots):
            if slot.child is not None:
                groups.setdefault(slot.part.grace_s, []).append(slot.child)
        return list(groups.values())

    def _stop_group(self, group: list[Child]) -> None:
        for child in group:
            child.terminate()
        deadline = time.monotonic() + group[0].part.grace_s
        while any(child.exit_reason() is None for child in group) and time.monotonic() < deadline:
            if self._stop_signals > 1:
                deadline = min(deadline, time.monotonic() + HURRIED_GRACE_S)
                self._stop_signals = 1
            time.sleep(0.05)
        for child in group:
            if not child.wait_or_kill(deadline):
                self._report(
                    f"{child.part.name} took too long to stop and was killed; what it was doing will be redone"
                )

    def _schedule_restart(self, slot: _Slot, child: Child, reason: str, now: float) -> None:
        if now - child.started > HEALTHY_AFTER_S:
            slot.failures = 0
        delay_s = min(FIRST_DELAY_S * 2.0**slot.failures, LONGEST_DELAY_S)
        self._report(f"{slot.part.name} {reason}; starting it again in {delay_s:g} s (log: {slot.part.log})")
        slot.failures += 1
        slot.restart_at = now + delay_s
        slot.child = None
        kill_all(self._orphans())

    def _orphans(self) -> set[int]:
        running = {slot.child.pid for slot in self._slots if slot.child is not None}
        return children_of(os.getpid()) - running - self._earlier_children

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._stop_signals += 1


def _is_nohup(number: signal.Signals) -> bool:
    return number == signal.SIGHUP and signal.getsignal(number) is signal.SIG_IGN
