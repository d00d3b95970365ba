"""What an installation can do, in one look."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from masksmith_wire.documents import WorkerInfo


@dataclass(frozen=True, slots=True)
class Info:
    """A service's state and abilities.

    Attributes:
        url: The service's URL.
        ready: Whether it can take and do jobs now.
        trouble: Why it is not ready; None if it is.
        workers: The live workers; empty where only an admin's key may see them.
        patterns, solvers: What it says about its patterns and solvers.
    """

    url: str
    ready: bool
    trouble: str | None
    workers: list[WorkerInfo]
    patterns: Any
    solvers: Any
