"""What an installation can do, in one look."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from masksmith_wire.documents import WorkerInfo
from masksmith_wire.errors import Problem


@dataclass(frozen=True, slots=True)
class Info:
    """A service's state and abilities.

    Attributes:
        url: Where it was asked.
        ready: Whether it can take and do jobs now.
        trouble: What stops it, where it is not ready.
        workers: The workers that live; none where only an admin's key sees them.
        patterns, solvers: What it says about its patterns and solvers.
    """

    url: str
    ready: bool
    trouble: str | None
    workers: list[WorkerInfo]
    patterns: Any
    solvers: Any


def read_info(url: str, trouble: Problem | None, workers: list[WorkerInfo], patterns: Any, solvers: Any) -> Info:
    """Put the answers together."""
    return Info(url, trouble is None, None if trouble is None else trouble.detail, workers, patterns, solvers)
