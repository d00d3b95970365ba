"""The time limit of a search."""

from __future__ import annotations

import math
import time


class TimeLimit:
    """A time limit that starts at once; None is no limit. `cut_short` is whether the limit ended the search."""

    def __init__(self, limit_s: float | None = None) -> None:
        self._deadline = math.inf if limit_s is None else time.monotonic() + limit_s
        self.cut_short = False

    def passed(self) -> bool:
        """Return whether the limit has passed; sets `cut_short` if so."""
        self.cut_short = self.cut_short or time.monotonic() >= self._deadline
        return self.cut_short
