"""States of jobs."""

from __future__ import annotations

from enum import StrEnum


class JobState(StrEnum):
    """State of a job or of a part of it: `queued -> running -> succeeded | failed | canceled`."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELED = "canceled"

    @property
    def is_terminal(self) -> bool:
        """Whether the job has ended: its state no longer changes."""
        return self in (JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELED)
