"""Progress bars on stderr: bytes while uploading, shards while solving."""

from __future__ import annotations

import sys
import threading
from typing import Self

from tqdm import tqdm

from .transport.events import Event


class Bar:
    """A thread-safe progress bar.

    Args:
        label: Text before the bar.
        total: The count at which it is full.
        show: Whether to show it; None shows it on terminals and in notebooks.
        in_bytes: Whether it counts bytes.
        unit: Name of the unit, unless it counts bytes.
    """

    def __init__(
        self, label: str, total: int, *, show: bool | None, in_bytes: bool = False, unit: str = "shard"
    ) -> None:
        self._lock = threading.Lock()
        units = {"unit": "B", "unit_scale": True, "unit_divisor": 1024} if in_bytes else {"unit": unit}
        self._bar = tqdm(total=total, desc=label, disable=not _is_shown(show), leave=False, **units)

    def advance(self, count: int) -> None:
        """Add `count`, which may be negative."""
        with self._lock:
            self._bar.update(count)

    def on_event(self, event: Event) -> None:
        """Show the progress of a job's event, if it has one."""
        if event.progress is not None:
            self.move_to(event.progress.done, event.progress.total)

    def move_to(self, done: int, total: int) -> None:
        """Set count and total."""
        self._bar.total = total
        self.advance(done - self._bar.n)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._bar.close()


def _is_shown(show: bool | None) -> bool:
    return show if show is not None else (sys.stderr.isatty() or "ipykernel" in sys.modules)
