"""A service's readiness, workers, patterns and solvers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from masksmith_wire.documents import WorkerInfo


@dataclass(frozen=True, slots=True)
class Info:
    """A service's readiness, workers and capabilities.

    Attributes:
        url: The service's URL.
        ready: Whether it can accept and run jobs now.
        trouble: Why it is not ready; None if it is.
        workers: The running workers; empty unless the key is an admin's, since other keys may not list workers.
        patterns, solvers: The documents of `GET /v1/patterns` and `GET /v1/solvers`.
    """

    url: str
    ready: bool
    trouble: str | None
    workers: list[WorkerInfo]
    patterns: Any
    solvers: Any
