"""When to stop."""

from __future__ import annotations

import math
import time


class Deadline:
    """A moment to stop at, and whether that cut anything short."""

    def __init__(self, limit_s: float | None = None) -> None:
        self._at = math.inf if limit_s is None else time.monotonic() + limit_s
        self.cut_short = False

    def passed(self) -> bool:
        """Whether it is over; remembers that somebody had to stop."""
        self.cut_short = self.cut_short or time.monotonic() >= self._at
        return self.cut_short
