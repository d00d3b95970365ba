"""What an installation can do, in one look."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from masksmith_wire.documents import WorkerInfo


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
