"""Progress bars on stderr: bytes while uploading, shards while solving."""

from __future__ import annotations

import sys
import threading
from typing import Self

from tqdm import tqdm

from .transport.events import Event


class Bar:
    """A bar that several threads may move.

    Args:
        what: The work that it shows.
        total: Its end.
        show: True, False, or None: on terminals and in notebooks.
        in_bytes: Whether it counts bytes.
        unit: What else it counts.
    """

    def __init__(
        self, what: str, total: int, *, show: bool | None, in_bytes: bool = False, unit: str = "shard"
    ) -> None:
        self._lock = threading.Lock()
        kind = {"unit": "B", "unit_scale": True, "unit_divisor": 1024} if in_bytes else {"unit": unit}
        self._bar = tqdm(total=total, desc=what, disable=not _wanted(show), leave=False, **kind)

    def advance(self, count: int) -> None:
        """Move by `count`, backwards too."""
        with self._lock:
            self._bar.update(count)

    def on_event(self, event: Event) -> None:
        """Follow a job."""
        if event.progress is not None:
            self.move(event.progress.done, event.progress.total)

    def move(self, done: int, total: int) -> None:
        """Move to a place; the end may have changed."""
        self._bar.total = total
        self.advance(done - self._bar.n)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._bar.close()


def _wanted(show: bool | None) -> bool:
    return show if show is not None else (sys.stderr.isatty() or "ipykernel" in sys.modules)
