"""The time limit of a search."""

from __future__ import annotations

import math
import time


class TimeLimit:
    """A time limit, and whether it ended the search (`cut_short`)."""

    def __init__(self, limit_s: float | None = None) -> None:
        self._at = math.inf if limit_s is None else time.monotonic() + limit_s
        self.cut_short = False

    def passed(self) -> bool:
        """Return whether the limit has passed; sets `cut_short` if so."""
        self.cut_short = self.cut_short or time.monotonic() >= self._at
        return self.cut_short
