"""Progress on stderr, as bars or lines: bytes while uploading, shards while solving."""

from __future__ import annotations

import sys
import threading
import time
from typing import Any, Literal, Self

from tqdm import tqdm

from .transport.events import Event

ShowProgress = bool | Literal["lines"] | None
"""Whether to show progress: None shows bars on terminals and in notebooks, "lines" also prints lines elsewhere."""
LINE_PERIOD_S = 5.0


class Bar:
    """A thread-safe progress bar, or a line every few seconds.

    Args:
        label: Text before the bar.
        total: The count at which it is full.
        show: Whether to show it; see `ShowProgress`.
        in_bytes: Whether it counts bytes.
        unit: Name of the unit, unless it counts bytes.
        start: What an earlier run has counted already.
        unit_scale: Whether counts of the unit are shortened, such as 1.5M.
    """

    def __init__(
        self,
        label: str,
        total: int,
        *,
        show: ShowProgress,
        in_bytes: bool = False,
        unit: str = "shard",
        start: int = 0,
        unit_scale: bool = False,
    ) -> None:
        self._lock, self._closed = threading.Lock(), threading.Event()
        self._label, self._unit, self._count, self._total = label, None if in_bytes else unit, start, total
        self._start, self._unit_scale = start, unit_scale
        self._lines: threading.Thread | None = None
        self._note = ""
        if show == "lines" and not _is_shown(show):
            self._lines = threading.Thread(target=self._print_lines, name="progress", daemon=True)
        units: dict[str, Any] = {"unit": "B", "unit_scale": True, "unit_divisor": 1024} if in_bytes else {"unit": unit}
        units |= {"unit_scale": True} if unit_scale else {}
        self._bar = tqdm(total=total, desc=label, initial=start, disable=not _is_shown(show), leave=False, **units)

    def advance(self, count: int) -> None:
        """Add `count`, which may be negative."""
        with self._lock:
            self._count += count
            self._bar.update(count)

    @property
    def is_shown(self) -> bool:
        """Whether anybody sees the progress."""
        return self._lines is not None or not self._bar.disable

    def note(self, text: str) -> None:
        """Set a text that is shown instead of the count, or none if it is empty."""
        if text != self._note:
            self._note = text
            self._bar.set_postfix_str(text)

    def rename(self, label: str) -> None:
        """Change the text before the bar."""
        self._label = label
        self._bar.set_description(label)

    def on_event(self, event: Event) -> None:
        """Show the progress of a job's event, if it has one."""
        if event.progress is not None:
            self.move_to(event.progress.done, event.progress.total)

    def move_to(self, done: int, total: int) -> None:
        """Set count and total."""
        self._total = self._bar.total = total
        self.advance(done - self._count)

    def __enter__(self) -> Self:
        if self._lines is not None:
            self._lines.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._closed.set()
        if self._lines is not None:
            self._lines.join()
        self._bar.close()

    def _print_lines(self) -> None:
        began = time.monotonic()
        while not self._closed.wait(LINE_PERIOD_S):
            elapsed_s = time.monotonic() - began
            amount, left = self._note or self._amount(), "" if self._note else self._time_left(elapsed_s)
            sys.stderr.write(f"{self._label}: {amount}, {elapsed_s:.0f} s{left}\n")
            sys.stderr.flush()

    def _time_left(self, elapsed_s: float) -> str:
        """Say how long the rest takes at the rate so far; nothing before there is one."""
        done, left = self._count - self._start, self._total - self._count
        return f", about {elapsed_s * left / done:.0f} s left" if done > 0 and left > 0 else ""

    def _amount(self) -> str:
        if self._unit is not None and self._unit_scale:
            done, total = (tqdm.format_sizeof(count) for count in (self._count, self._total))
            return f"{done} of {total} {self._unit}s"
        if self._unit is not None:
            return f"{self._count} of {self._total} {self._unit}{'s' if self._total != 1 else ''}"
        done, total = (tqdm.format_sizeof(size, "B", 1024) for size in (self._count, self._total))
        return f"{done} of {total}"


def _is_shown(show: ShowProgress) -> bool:
    return show if isinstance(show, bool) else (sys.stderr.isatty() or "ipykernel" in sys.modules)
