"""Priorities of jobs, among the jobs of one key."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

PriorityName = Literal["interactive", "normal", "batch"]


class Priority(StrEnum):
    """Priority of a job: its shards are taken before the shards of jobs of lower priority of the same key.

    `interactive` is for jobs that somebody waits for, `batch` for jobs that may wait for hours.
    """

    INTERACTIVE = "interactive"
    NORMAL = "normal"
    BATCH = "batch"

    def at_most(self, highest: Priority) -> Priority:
        """This priority, or `highest` if that is lower."""
        from_high_to_low = list(Priority)
        return max(self, highest, key=from_high_to_low.index)
