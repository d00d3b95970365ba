"""Progress on stderr, as bars or lines: counts of bytes, shards, cases or other units."""

from __future__ import annotations

import sys
import threading
import time
from typing import Any, Literal, Self

from tqdm import tqdm

from masksmith_wire.quantities import count_text, duration_text, size_text

from .transport.events import Event

ShowProgress = bool | Literal["lines"] | None
"""True shows a bar; False shows nothing. None and "lines" show a bar on terminals and in notebooks; elsewhere, such as
in a log file, None shows nothing, and "lines" prints lines."""
LINE_PERIOD_S = 5.0
"""Seconds between two lines."""


class Bar:
    """A progress bar, or a line every few seconds, or nothing; several threads may call `advance`.

    Args:
        label: Text before the bar.
        total: The count at which the bar is full; 0 while this count is not known.
        show: Whether to show a bar or print lines; see `ShowProgress`.
        in_bytes: Whether the count is a number of bytes.
        unit: Singular name of what is counted; not used with `in_bytes`.
        start: The count at the start, such as what an earlier run has done.
        note: A text that is shown instead of the count and the time left; see `note`.
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
        note: str = "",
    ) -> None:
        self._lock, self._closed = threading.Lock(), threading.Event()
        self._label, self._unit, self._note = label, None if in_bytes else unit, note
        self._start, self._count, self._total = start, start, total
        self._began = time.monotonic()
        self._line_thread: threading.Thread | None = None
        if show == "lines" and not _shows_bar(show):
            self._line_thread = threading.Thread(target=self._print_lines, name="progress", daemon=True)
        self._bar = _TqdmBar(self, total=total, desc=label, initial=start, disable=not _shows_bar(show), leave=False)

    def advance(self, count: int) -> None:
        """Add `count`, which may be negative."""
        with self._lock:
            self._count += count
            self._bar.update(count)

    @property
    def is_shown(self) -> bool:
        """Whether a bar is shown or lines are printed."""
        return self._line_thread is not None or not self._bar.disable

    def note(self, text: str) -> None:
        """Set a text that is shown instead of the count and the time left; if it is empty, these are shown again."""
        if text != self._note:
            self._note = text
            self._bar.refresh()

    def rename(self, label: str) -> None:
        """Change the text before the bar."""
        self._label = label
        self._bar.set_description(label)

    def on_event(self, event: Event) -> None:
        """Show the progress that an event of a job contains; an event without progress changes nothing."""
        if event.progress is not None:
            self.move_to(event.progress.done, event.progress.total)

    def move_to(self, done: int, total: int) -> None:
        """Set count and total."""
        self._total = self._bar.total = total
        self.advance(done - self._count)

    def status(self) -> str:
        """Return what is shown behind the label: note and elapsed time, or count, elapsed time and time left."""
        elapsed_s = time.monotonic() - self._began
        amount, time_left = (self._note, "") if self._note else (self._amount(), self._time_left(elapsed_s))
        return f"{amount}, {duration_text(round(elapsed_s))}{time_left}"

    def __enter__(self) -> Self:
        self._began = time.monotonic()
        if self._line_thread is not None:
            self._line_thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._closed.set()
        if self._line_thread is not None:
            self._line_thread.join()
        self._bar.close()

    def _print_lines(self) -> None:
        while not self._closed.wait(LINE_PERIOD_S):
            sys.stderr.write(f"{self._label}: {self.status()}\n")
            sys.stderr.flush()

    def _time_left(self, elapsed_s: float) -> str:
        """Return the time left at the rate so far, as text; empty if nothing is counted yet, or nothing is left."""
        done, remaining = self._count - self._start, self._total - self._count
        if done <= 0 or remaining <= 0:
            return ""
        return f", about {duration_text(max(1, round(elapsed_s * remaining / done)))} left"

    def _amount(self) -> str:
        if self._unit is None:
            return f"{size_text(self._count)} of {size_text(self._total)}"
        plural = "s" if self._total != 1 else ""
        return f"{count_text(self._count)} of {count_text(self._total)} {self._unit}{plural}"


class _TqdmBar(tqdm):  # type: ignore[misc]
    """The bar of tqdm, with the status of a `Bar` behind it, so that bars and lines have the same texts."""

    def __init__(self, owner: Bar, **options: Any) -> None:
        self._owner = owner
        super().__init__(bar_format="{desc}: {percentage:3.0f}%|{bar}| {status}", **options)

    @property
    def format_dict(self) -> dict[str, Any]:
        """Values that the format may contain."""
        return {**super().format_dict, "status": self._owner.status()}


def _shows_bar(show: ShowProgress) -> bool:
    """Whether to show a bar: with "lines", as with None, on terminals and in notebooks only."""
    return show if isinstance(show, bool) else (sys.stderr.isatty() or "ipykernel" in sys.modules)
